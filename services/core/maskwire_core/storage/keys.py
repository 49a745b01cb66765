"""Every key that Maskwire keeps in Redis or Valkey. No other module builds or takes apart a key.

    maskwire:embedding:{NAMESPACE/CONTENT_KEY}   string written by `embedding.pack`; expires
    maskwire:lease:{NAMESPACE/CONTENT_KEY}       string: token of the encoder that is encoding the image; expires
    maskwire:alias:{NAMESPACE/IMAGE_ID}          string: content key that the image ID stands for; expires
    maskwire:deleted:{NAMESPACE/IMAGE_ID}        string: call that deleted the image ID last; expires
    maskwire:prompts:{NAMESPACE/CONTENT_KEY}     sorted set: prompts whose logits are saved, by time of use; expires
    maskwire:logits:{NAMESPACE/CONTENT_KEY}      hash: prompts to their logits; expires
    maskwire:regions:{NAMESPACE/CONTENT_KEY}     set: content keys of the regions of an image; expires
    maskwire:source:{NAMESPACE/CONTENT_KEY}      string: the file of an image, and its digest (`sources`); expires
    maskwire:deletions                           stream: the latest embeddings that callers deleted
    maskwire:cold:pending                        hash: files of the cold tier that are to follow the store (`cold_tier`)
    maskwire:cold:mover                          string: token of the encoder that moves them; expires
    maskwire:decoder:DIGEST                      string: `DecoderBundle.packed`
    maskwire:tracker:DIGEST                      string: `TrackerBundle.packed`
    maskwire:track:{NAMESPACE/TRACK_ID}          hash: what a tracker knows of a track (`tracks`); expires
    maskwire:clip:{NAMESPACE/CLIP_ID}            hash: the files of a clip's frames (`clips`); expires
    maskwire:tracks:{NAMESPACE}                  hash: tracks to their bytes and expiry (`ledger`)
    maskwire:clips:{NAMESPACE}                   hash: uploads of clips to their bytes and expiry (`ledger`)
    maskwire:usage:{NAMESPACE}                   sorted set: entries by expiry (milliseconds since 1970): content keys
                                                 of embeddings, and `source_entry` of files
    maskwire:sizes:{NAMESPACE}                   hash: entries to sizes in bytes, and "total" to their sum
    maskwire:writing:{NAMESPACE}                 sorted set: "ENTRY WRITER" of writes in progress, by the time
                                                 (milliseconds since 1970) until which they are protected

Braces mark a cluster's hash tag: the keys of one image lie on one node, and so do a namespace's last three. No command
or script touches keys of two tags, so everything works on a cluster.
"""

import re

EMBEDDINGS = "maskwire:embedding:{*/*}"
"""Glob pattern of all embeddings' keys, for SCAN."""

SOURCES = "maskwire:source:{*/*}"
"""Likewise of all kept files."""

DELETIONS = "maskwire:deletions"
"""The key of the list of deletions."""

COLD_PENDING = "maskwire:cold:pending"
"""The key of what is to be done in the cold tier."""

COLD_MOVER = "maskwire:cold:mover"
"""The key of the lease on doing it."""

ALIASES = "maskwire:alias:{*/*}"
"""Glob pattern of all image IDs' keys, for SCAN."""

TRACKS = "maskwire:tracks:{*}"
"""Glob pattern of the ledgers of all namespaces' tracks, for SCAN."""

CLIPS = "maskwire:clips:{*}"
"""Likewise of their clips."""

_SOURCE_ENTRY = "source:"


def embedding(namespace: str, content_key: str) -> str:
    return f"maskwire:embedding:{{{namespace}/{content_key}}}"


def lease(namespace: str, content_key: str) -> str:
    return f"maskwire:lease:{{{namespace}/{content_key}}}"


def alias(namespace: str, image_id: str) -> str:
    return f"maskwire:alias:{{{namespace}/{image_id}}}"


def deleted(namespace: str, image_id: str) -> str:
    return f"maskwire:deleted:{{{namespace}/{image_id}}}"


def prompts(namespace: str, content_key: str) -> str:
    return f"maskwire:prompts:{{{namespace}/{content_key}}}"


def logits(namespace: str, content_key: str) -> str:
    return f"maskwire:logits:{{{namespace}/{content_key}}}"


def regions(namespace: str, content_key: str) -> str:
    return f"maskwire:regions:{{{namespace}/{content_key}}}"


def source(namespace: str, content_key: str) -> str:
    return f"maskwire:source:{{{namespace}/{content_key}}}"


def source_entry(content_key: str) -> str:
    """What stands for the file of an image in the ledger of its namespace's quota."""
    return f"{_SOURCE_ENTRY}{content_key}"


def source_of_entry(entry: str) -> str:
    """The content key of the image whose file an entry of the ledger is; "" if it is an embedding's."""
    return entry.removeprefix(_SOURCE_ENTRY) if entry.startswith(_SOURCE_ENTRY) else ""


def decoder(digest: str) -> str:
    return f"maskwire:decoder:{digest}"


def tracker(digest: str) -> str:
    return f"maskwire:tracker:{digest}"


def track(namespace: str, track_id: str) -> str:
    return f"maskwire:track:{{{namespace}/{track_id}}}"


def clip(namespace: str, clip_id: str) -> str:
    return f"maskwire:clip:{{{namespace}/{clip_id}}}"


def clips(namespace: str) -> str:
    return f"maskwire:clips:{{{namespace}}}"


def tracks(namespace: str) -> str:
    return f"maskwire:tracks:{{{namespace}}}"


def quota_ledger(namespace: str) -> tuple[str, str, str]:
    """A namespace's usage, sizes and writing keys, in the order in which the scripts of `quotas` take them."""
    return (
        f"maskwire:usage:{{{namespace}}}",
        f"maskwire:sizes:{{{namespace}}}",
        f"maskwire:writing:{{{namespace}}}",
    )


def aliases_beginning_with(namespace: str, prefix: str) -> str:
    """Glob pattern of the keys of a namespace's image IDs that begin with `prefix`, which is taken literally."""
    start = alias(namespace, prefix).removesuffix("}")
    return re.sub(r"[\\*?\[\]^-]", lambda found: f"\\{found[0]}", start) + "*"


def parse(key: bytes) -> tuple[str, str]:
    """The namespace of an embedding's, file's, alias's or ledger's key, and the content key or image ID in it, or
    ""."""
    namespace, _, name = key.decode("utf-8", "replace").partition("{")[2][:-1].partition("/")
    return namespace, name
