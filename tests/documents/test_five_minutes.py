"""The pages that people follow: what they show is what is printed, and where they point there is
something. `scripts/five_minutes` follows all of the first one; here it is followed on one machine.
"""

import re
import shutil

import pytest

from tests.documents.five_minutes import PAGE, Wrong, walk
from tests.helpers.cluster import ROOT
from tests.helpers.document import blocks, matches, missing
from tests.helpers.marks import needs_torch
from zstreamer.web.api.problem import KINDS, REFUSALS, UNEXPECTED

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = "```"

needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="the pages' commands need curl")


def page(*parts):
    """A page of blocks, each given as its first line and its text."""
    found = "".join(f"{FENCE}{info}\n{text}\n{FENCE}\n\n" for info, text in parts)
    return f"# A page\n\n{found}"


# The page


def rate(printed):
    return float(re.search(r"about ([\d.]+) answers", printed)[1])


@needs_curl
@pytest.mark.slow
@pytest.mark.timeout(150)  # a busy machine starts programs slowly
def test_the_page_holds_on_one_machine():
    text = PAGE.read_text()
    assert text.count("begun + 3") == 1, "the load that this test makes shorter"
    printed = walk(text.replace("begun + 3", "begun + 1"), "5.", tell=lambda _: None)
    naive, batched, *clustered = [rate(each) for _, each in printed if "about" in each]
    assert batched > 2 * naive, "batches must be worth it"
    assert len(clustered) == 3


@needs_curl
@pytest.mark.timeout(150)
def test_the_page_about_http_holds():
    walk((ROOT / "docs" / "web.md").read_text(), tell=lambda _: None)


@needs_curl
@pytest.mark.timeout(150)
def test_the_page_about_security_holds():
    walk((ROOT / "docs" / "security.md").read_text(), tell=lambda _: None)


@pytest.mark.timeout(150)
def test_the_page_about_batch_jobs_holds():
    walk((ROOT / "docs" / "batch_jobs.md").read_text(), tell=lambda _: None)


@needs_curl
@needs_torch
@pytest.mark.timeout(150)
def test_the_page_about_images_holds():
    walk((ROOT / "docs" / "images.md").read_text(), tell=lambda _: None)


def test_every_block_of_the_page_is_followed_somewhere():
    for each in blocks(PAGE.read_text()):
        assert each.name or each.language in ("sh", "text"), str(each)
        assert "example" not in each.words, str(each)


# Following a page


def test_a_print_that_is_not_as_shown_is_an_error_that_shows_both():
    wrong = page(("sh", "echo one"), ("text", "two"))
    with pytest.raises(Wrong, match=r"line 7 .*printed was:\none\n(.|\n)*the page has:\ntwo"):
        walk(wrong, tell=lambda _: None)


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([("sh", "echo here; exit 3")], "ended with 3; it printed:\nhere"),
        ([("sh terminal a", "echo one"), ("text", "two")], "'two'.* is not in what was printed"),
        ([("json", "{}")], "mark it as an example"),
    ],
)
def test_what_does_not_hold_is_an_error(blocks, words):
    with pytest.raises(Wrong, match=words):
        walk(page(*blocks), tell=lambda _: None)


def test_what_is_not_followed_is_said_so():
    told = []
    parts = [("sh needs no_such_thing", "exit 1"), ("text", "none"), ("sh install", "exit 1")]
    walk(page(*parts, ("yaml example", "a: b")), tell=told.append)
    reasons = [line.split("not followed, ")[1] for line in told if "not followed" in line]
    assert reasons[0] == "no_such_thing is not installed"
    assert len(reasons) == 4


def test_files_commands_and_terminals_share_a_folder_and_machines_do_not():
    parts = [
        ("text it.txt", "one"),
        ("sh terminal a", "cat it.txt; sleep 60"),
        ("text", "one"),
        ("sh", "scp it.txt 10.0.0.6:"),
        ("sh on 10.0.0.6", "cat it.txt"),
        ("text", "one"),
        ("sh on 10.0.0.7", "ls"),
        ("text", ""),
    ]
    walk(page(*parts), tell=lambda _: None)


# What a page shows, against what was printed


def test_what_is_shown_must_be_printed_line_by_line():
    assert matches("one\ntwo", "one  \r\ntwo\n")
    assert not matches("one", "one\ntwo")
    assert not matches("o.e", "one")


def test_an_ellipsis_stands_for_anything_and_figures_only_where_it_says_about():
    assert matches("… pid 3 …", "12:03 pid 3 started")
    assert matches("about 41 a second, 0.5 ms", "about 1,234.5 a second, 17 ms")
    assert not matches("about 41 a second", "about many a second")
    assert not matches("41 wrong", "42 wrong")


def test_a_terminal_shows_each_line_as_often_as_the_page_does():
    assert missing("a\na", "b\na\nc\na") == []
    assert missing("a\na", "b\na") == ["a"]


def test_a_block_says_what_it_is_for():
    [block] = blocks(page(("sh terminal web on 10.0.0.7 needs torch", "ls")))
    assert block.words == {"terminal": "web", "on": "10.0.0.7", "needs": "torch"}
    assert (block.language, block.name, block.text, block.part) == ("sh", "", "ls", "A page")
    with pytest.raises(AssertionError, match="has no end"):
        blocks(f"{FENCE}sh\nls")


# What pages say


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    plain = re.sub(r"(?ms)^```.*?^```", "", text)
    titles = re.findall(r"(?m)^#+ (.*)$", plain)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_point_to_something(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        place, _, anchor = link.partition("#")
        if "://" in place:
            continue
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_the_table_of_statuses_is_that_of_the_code():
    text = (ROOT / "docs" / "web.md").read_text()
    table = text.split("<!-- statuses -->")[1].split("<!-- end of statuses -->")[0]
    told = {
        (int(status), name)
        for status, names in re.findall(r"(?m)^\| (\d+) \| (.*?) \|", table)
        for name in re.findall(r"`(.*?)`", names)
    }
    kinds = {*KINDS.values(), *REFUSALS.values(), UNEXPECTED}
    assert told == {(each.status, each.name) for each in kinds}
