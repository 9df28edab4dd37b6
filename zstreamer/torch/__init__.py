"""A base class for torch models: device, dtype, threads, padding and warm-up in one place.

    from zstreamer.torch import TorchModel, buckets

    class Sentiment(TorchModel):
        example = ["I like it."]
        length_buckets = buckets(16, 512)

        def load(self, name="distilbert-base-uncased-finetuned-sst-2-english"):
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.padding = {"input_ids": self.tokenizer.pad_token_id, "attention_mask": 0}
            return AutoModelForSequenceClassification.from_pretrained(name)

        def prepare(self, text):
            return self.tokenizer(text, truncation=True, max_length=512)

        def cost(self, tokens):
            return len(tokens["input_ids"])

        def finish(self, output, tokens):
            return output["logits"].softmax(-1)[1].item()

model.py is the class, device.py chooses where it runs and in which dtype, padding.py makes batches
of items, tensors.py takes them to the device and the outputs back, on CUDA in the streams of
streams.py. batch.py is a batch under way, graphs.py runs it as a CUDA graph, and sizes.py chooses
the sizes of batches. See docs/torch.md.
"""

try:
    import torch as _torch  # noqa: F401  # the package of that name, not this one
except ModuleNotFoundError as missing:
    if missing.name != "torch":
        raise
    raise ImportError("zstreamer.torch needs PyTorch: pip install 'zstreamer[torch]'") from missing

from zstreamer.torch.batch import Features
from zstreamer.torch.model import TorchModel
from zstreamer.torch.padding import buckets
from zstreamer.torch.tensors import Outputs

__all__ = ["Features", "Outputs", "TorchModel", "buckets"]
