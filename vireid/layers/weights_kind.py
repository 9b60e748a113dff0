"""What a file is that was given as weights, by its first bytes: a page, a pointer, a graph, an archive, or tensors."""

from __future__ import annotations

HEAD_BYTES = 512
LFS = b"version https://git-lfs.github.com/spec/"
MAGIC = {
    b"\x1f\x8b": "archive",  # gzip
    b"Rar!": "archive",
    b"7z\xbc\xaf": "archive",
    b"BZh": "archive",
    b"\xfd7zXZ": "archive",
    b"%PDF": "pdf",
    b"\x89HDF": "hdf5",
    b"\x93NUMPY": "npy",
}
TEXT = frozenset(b"\t\n\r") | frozenset(range(0x20, 0x7F))
ADVICE = {  # what a file is, and what to do
    "page": (
        "a web page (a login, a warning or an error of the server), not weights: open the address in a browser, and "
        "save the file itself"
    ),
    "lfs": (
        "a pointer of Git LFS, not the weights: run `git lfs pull` in that repository, or download the file from its "
        "page"
    ),
    "onnx": (
        "an ONNX graph, which a network here cannot be filled from: give the checkpoint (.pth, .safetensors) that it "
        "was exported from"
    ),
    "empty": "an empty file: download it again",
    "json": "JSON text, not weights: give the file of tensors (.pth, .safetensors) that lies beside it",
    "archive": "an archive: unpack it and give the checkpoint inside",
    "pdf": "a PDF, not weights: give the checkpoint (.pth, .safetensors)",
    "text": "a text, not weights (perhaps the answer of a server): open it, and save the file of weights itself",
    "hdf5": "an HDF5 file (Keras), which is not read: give weights of a PyTorch network (.pth, .safetensors)",
    "npy": "a NumPy array, which has no names of tensors: give a checkpoint (.pth, .safetensors)",
}


def not_weights(head: bytes) -> str | None:
    """What the file is and what to do, from its first HEAD_BYTES bytes; None where it may hold weights.

    >>> not_weights(b"<!DOCTYPE html><html>")[:10], not_weights(bytes(64))
    ('a web page', None)
    """
    kind = kind_of(head)
    return None if kind in ("safetensors", "other") else ADVICE[kind]


def kind_of(head: bytes) -> str:
    """One of the keys of ADVICE, `safetensors`, or `other`."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return "empty"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return "page"
    if head.startswith(LFS):
        return "lfs"
    if is_safetensors(head):
        return "safetensors"
    if text.startswith((b"{", b"[")):
        return "json"
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "archive"
    if all(byte in TEXT for byte in head):
        return "text"
    return "onnx" if is_onnx(head) else "other"


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a JSON header, 8 bytes, and that header."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def is_onnx(head: bytes) -> bool:
    """Whether a file begins as ONNX's ModelProto does: the number of the format (field 1), then text (2 to 6) or the
    graph or the opset (7, 8)."""
    return head[:1] == b"\x08" and len(head) > 3 and head[1] < 32 and head[2] in (0x12, 0x1A, 0x22, 0x32, 0x3A, 0x42)
