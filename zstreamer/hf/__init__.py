"""Models of the Hugging Face hub, served without a class of one's own.

    from zstreamer import ThreadedStreamer
    from zstreamer.hf import model

    with ThreadedStreamer(model("sentence-transformers/all-MiniLM-L6-v2"), 32) as streamer:
        vectors = streamer.predict(["one text", "another"])

    zstreamer up hf:sentence-transformers/all-MiniLM-L6-v2 --http 8000

name ─ source (folder, cache, hub or package) ─> folder ─ card (its JSON files) ─> Card
Card ─ tasks ─> task ─ pretrained ─> the class of that task, which loads it

embeddings, classification, scores, tokens, fill_mask and images have a class for each task, on
pretrained's and text's. Nothing here imports torch before a class is made. See docs/models.md.
"""

from importlib.util import find_spec

for _needed in ("torch", "transformers"):
    if find_spec(_needed) is None:
        raise ImportError(f"zstreamer.hf needs {_needed}: pip install 'zstreamer[hf]'")

from zstreamer.hf.pretrained import model  # noqa: E402  # first what is missing

__all__ = ["model"]
