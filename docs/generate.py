"""Generates documents and tables; with --check, only compares.

docs/reference/settings.md from the settings, docs/reference/grpc.md from protos/, docs/compatibility.md from the tests
that run clients of others (compatibility_table.py), and from bench/results/ the tables of figures in README.md,
docs/explanation/performance.md, docs/explanation/exactness.md and docs/explanation/scaling.md.
docs/explanation/security.md gets what the servers' memory is made of, and from tests/faults/attacks/ the table of
attacks.
"""

import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin

from compatibility_table import compatibility
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc
from maskwire_core.config import MIB, DecoderSettings, EncoderSettings, GatewaySettings, Settings, TrackerSettings
from maskwire_core.runtime.memory_sum import stated_sum, terms_of
from pydantic.fields import FieldInfo

DOCS = Path(__file__).parent
PROTOS = DOCS.parent / "protos"
RESULTS = DOCS.parent / "bench" / "results"
_IN_README = ("decode one click, fp32", "warm click over gRPC, prompt to RLE")
"""Names of the rows of `python -m bench` that README.md shows, each against the first alternative."""
_TITLES: tuple[tuple[str, type[Settings]], ...] = (
    ("Encoder", EncoderSettings),
    ("Decoder", DecoderSettings),
    ("Tracker", TrackerSettings),
    ("Gateway", GatewaySettings),
)


def settings() -> str:
    """Makes docs/reference/settings.md: one table for each server."""
    lines = [
        "# Settings",
        "",
        "Every setting is an option of its server and an environment variable; options take precedence. Generated from"
        " `maskwire_core/config.py` by `python docs/generate.py`.",
        "",
        "The client reads `MASKWIRE_ENCODER`, `MASKWIRE_DECODER` (addresses), `MASKWIRE_TOKEN`, `MASKWIRE_TLS`,"
        " `MASKWIRE_TLS_CA`, `MASKWIRE_TLS_CLIENT_CERT` and `MASKWIRE_TLS_CLIENT_KEY`.",
    ]
    for title, kind in _TITLES:
        lines += ["", f"## {title}", "", "| option | environment | values | default | |", "|---|---|---|---|---|"]
        for name, field in kind.model_fields.items():
            option, variable = f"`--{name.replace('_', '-')}`", f"`MASKWIRE_{name.upper()}`"
            row = (
                option,
                variable,
                _values(field),
                _default(field.default),
                " ".join((field.description or "").split()),
            )
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")
    return "\n".join(lines) + "\n"


def _values(field: FieldInfo) -> str:
    kinds = [kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not type(None)]
    if get_origin(field.annotation) is list:
        kind = "several, separated by commas"
    elif all(isinstance(value, str) for value in kinds):
        kind = ", ".join(kinds)
    else:
        names = {str: "text", int: "number", float: "number", bool: "true, false", Path: "path"}
        kind = names.get(kinds[0], str(kinds[0]))
    bounds = []
    for rule in field.metadata:
        for word, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if getattr(rule, word, None) is not None:
                bounds.append(f"{sign} {getattr(rule, word):,}")
    return " ".join([kind, ", ".join(bounds)]).strip()


def _default(value: Any) -> str:
    if value is None or value == []:
        return ""
    if isinstance(value, list):
        return f"`{','.join(map(str, value))}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def grpc() -> str:
    """Makes docs/reference/grpc.md: services, then messages, with the comments of the protos."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "all"
        well_known = resources.files("grpc_tools") / "_proto"
        files = sorted(str(path) for path in (PROTOS / "maskwire").rglob("*.proto"))
        arguments = ["protoc", f"-I{PROTOS}", f"-I{well_known}", f"--descriptor_set_out={out}"]
        if protoc.main([*arguments, "--include_source_info", *files]):
            raise SystemExit("error: protoc failed")
        found = FileDescriptorSet.FromString(out.read_bytes())
    lines = ["# gRPC", "", "Package `maskwire.v1`. Generated from `protos/` by `python docs/generate.py`."]
    for file in found.file:
        lines += _services(file)
    for file in found.file:
        lines += _messages(file)
    return "\n".join(lines) + "\n"


class _Comments:
    def __init__(self, file: FileDescriptorProto) -> None:
        self._found = {
            tuple(place.path): (place.leading_comments or place.trailing_comments)
            for place in file.source_code_info.location
        }

    def __call__(self, *path: int) -> str:
        return " ".join(line.strip() for line in self._found.get(path, "").strip().splitlines())


def _services(file: FileDescriptorProto) -> Iterator[str]:
    comments = _Comments(file)
    for number, service in enumerate(file.service):
        yield from ("", f"## {service.name}", "", comments(6, number))
        yield from ("", "| method | request | response | |", "|---|---|---|---|")
        for index, method in enumerate(service.method):
            request = ("stream of " if method.client_streaming else "") + _link(method.input_type)
            response = ("stream of " if method.server_streaming else "") + _link(method.output_type)
            yield f"| {method.name} | {request} | {response} | {_cell(comments(6, number, 2, index))} |"


def _messages(file: FileDescriptorProto) -> Iterator[str]:
    comments = _Comments(file)
    for number, message in enumerate(file.message_type):
        yield from _message(message, "", comments, (4, number))
    for number, enum in enumerate(file.enum_type):
        yield from _enum(enum, "", comments, (5, number))


def _message(message: DescriptorProto, outer: str, comments: _Comments, path: tuple[int, ...]) -> Iterator[str]:
    name = f"{outer}{message.name}"
    yield from ("", f"### {name}", "", comments(*path))
    if message.field:
        yield from ("", "| field | type | |", "|---|---|---|")
    for index, field in enumerate(message.field):
        choice = ""
        if field.HasField("oneof_index") and not field.proto3_optional:
            choice = f"One of *{message.oneof_decl[field.oneof_index].name}*. "
        yield f"| {field.name} | {_type(field)} | {choice}{_cell(comments(*path, 2, index))} |"
    for index, inner in enumerate(message.nested_type):
        yield from _message(inner, f"{name}.", comments, (*path, 3, index))
    for index, enum in enumerate(message.enum_type):
        yield from _enum(enum, f"{name}.", comments, (*path, 4, index))


def _enum(enum: EnumDescriptorProto, outer: str, comments: _Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield from ("", f"### {outer}{enum.name}", "", comments(*path), "", "| value | |", "|---|---|")
    for index, value in enumerate(enum.value):
        yield f"| {value.name} | {_cell(comments(*path, 2, index))} |"


def _type(field: FieldDescriptorProto) -> str:
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    shown = _link(field.type_name) if field.type_name else kind
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"list of {shown}"
    return f"optional {shown}" if field.proto3_optional else shown


def _link(name: str) -> str:
    ours = name.removeprefix(".maskwire.v1.")
    if ours == name:
        return name.lstrip(".")
    return f"[{ours}](#{ours.lower().replace('.', '')})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def performance(*only: str) -> str:
    """The last run of `python -m bench`, shortened; only the rows with these names, if some are given."""
    run = json.loads((RESULTS / "cpu.json").read_text())
    if missing := set(only) - {row["name"] for row in run["rows"]}:
        raise SystemExit(f"error: bench/results/cpu.json has no row {' or '.join(sorted(missing))}")
    lines = ["| what | Maskwire | against | | time, of the latter |", "|---|---|---|---|---|"]
    seen = set()
    for row in run["rows"]:
        if only and (row["name"] not in only or row["name"] in seen):
            continue
        seen.add(row["name"])
        ours, other = (f"{row[key]:,.{0 if row[key] >= 100 else 1}f} ms" for key in ("ours_ms", "other_ms"))
        lines.append(f"| {row['name']} | {ours} | {row['against']} | {other} | {row['ratio']:.0%} |")
    return "\n".join(lines)


def scaling(heading: str) -> str:
    """The table of the last run of `python -m bench.scale` that begins with a heading."""
    table = (RESULTS / "scale.md").read_text().partition(f"| {heading} |")
    return "".join(table[1:]).partition("\n\n")[0]


def exactness() -> str:
    """What the last run of `python -m bench.exactness` said."""
    return (RESULTS / "exactness.md").read_text().rstrip()


def codecs() -> str:
    """The last runs of `python -m bench.codecs`: what each codec of the store costs."""
    runs = [json.loads((RESULTS / f"{name}.json").read_text()) for name in ("codecs", "codecs_seeded")]
    lines = [
        "| model | codec | MiB | a click | a box | five corrections | flips | encode, ms | decode, ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model, measured in (each for run in runs for each in run["models"].items()):
        for codec, each in measured["codecs"].items():
            ious = " | ".join(
                f"{each[kind]['mean']:.4f}, {each[kind]['least']:.4f}" for kind in ("click", "box", "corrections")
            )
            shares = f"{each['flips']:.1%} | {each['encode_ms']:.0f} | {each['decode_ms']:.1f}"
            lines.append(f"| {model} | {codec} | {each['mib']:.2f} | {ious} | {shares} |")
        if "klt" not in measured["codecs"]:
            lines.append(f"| {model} | klt | falls back to fp16 | | | | | | |")
    return "\n".join(lines)


def region_clicks() -> str:
    """The table of the last run of `python -m bench.region_clicks`."""
    lines = (RESULTS / "region_clicks.md").read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def memory() -> str:
    """What each server's memory is made of, with the settings of docker-compose.yml and deploy/kubernetes."""
    lines = ["| Server | term | MiB |", "|---|---|---|"]
    for title, used in (
        ("encoder", EncoderSettings.model_construct()),
        ("decoder, `workers` 4", DecoderSettings.model_construct(workers=4)),
        ("tracker", TrackerSettings.model_construct()),
        ("gateway", GatewaySettings.model_construct()),
    ):
        for index, term in enumerate(terms_of(used)):
            lines.append(f"| {'' if index else title} | {term.what} | {term.nbytes / MIB:,.0f} |")
        lines.append(f"| | **sum, rounded up to a quarter of a GiB** | **{stated_sum(used) // MIB:,}** |")
    return "\n".join(lines)


def attacks() -> str:
    """The table of attacks. `tests` is no installed package, so that its module is loaded by its path."""
    path = DOCS.parent / "tests" / "faults" / "attacks" / "table.py"
    spec = importlib.util.spec_from_file_location("attacks_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    table: str = module.table()
    return table


def filled(path: Path, **tables: str) -> str:
    """A file with what is between `<!-- name -->` and `<!-- end -->` replaced."""
    text = path.read_text()
    for name, table in tables.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = ("\n" + rest).partition("\n<!-- end -->")
        if not (start and end):
            raise SystemExit(f"error: {path.name} has no place for {name}")
        text = before + start + table + end + after
    return text


def main() -> None:
    stale = []
    readme = DOCS.parent / "README.md"
    performance_page, scaling_page = DOCS / "explanation/performance.md", DOCS / "explanation/scaling.md"
    security_page, exactness_page = DOCS / "explanation/security.md", DOCS / "explanation/exactness.md"
    large_page = DOCS / "how-to/large-pictures.md"
    clusters, processes = scaling("cluster"), scaling("processes")
    for path, text in (
        (DOCS / "reference/settings.md", settings()),
        (DOCS / "reference/grpc.md", grpc()),
        (DOCS / "compatibility.md", compatibility()),
        (readme, filled(readme, performance=performance(*_IN_README))),
        (performance_page, filled(performance_page, performance=performance())),
        (scaling_page, filled(scaling_page, clusters=clusters, processes=processes)),
        (exactness_page, filled(exactness_page, exactness=exactness(), codecs=codecs())),
        (large_page, filled(large_page, clicks=region_clicks())),
        (security_page, filled(security_page, memory=memory(), attacks=attacks())),
    ):
        if not path.exists() or path.read_text() != text:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(text)
    if stale and "--check" in sys.argv:
        raise SystemExit(f"error: {' and '.join(stale)} are not current; run: python docs/generate.py")


if __name__ == "__main__":
    main()
