"""Debian's package index: the text that the model is trained and judged on.

First step of the flow: `fetch` downloads the index by apt into a directory of
its own (the host's apt lists stay as they are), `read_packages` joins its three
parts into one `Package` per program: the index proper (names, tags), the
English long descriptions, and AppStream's summaries, which other people wrote
about the same programs.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

# The packages whose files are read: a thesaurus, and the dictionary that stands
# for text outside the domain.
DATA_PACKAGES = ("wordnet-base", "dict-gcide")

# Packages nobody looks for by need: the parts of other packages.
SKIPPED_SECTIONS = frozenset(
    {
        *("debug", "doc", "fonts", "introspection", "kernel", "libdevel", "libs", "localization"),
        *("metapackages", "oldlibs", "tasks", "translations"),
    }
)
# Language modules are many and much alike: this share of each such section is kept.
THINNED_SECTIONS = {
    "gnu-r": 0.25,
    "golang": 0.1,
    "haskell": 0.1,
    "java": 0.3,
    "javascript": 0.2,
    "lisp": 0.3,
    "ocaml": 0.2,
    "perl": 0.25,
    "php": 0.2,
    "python": 0.35,
    "ruby": 0.25,
    "rust": 0.05,
}
_SKIPPED_NAMES = re.compile(
    r"-(dev|doc|docs|dbg|dbgsym|data|common|l10n.*|examples?|locale.*)$|^lib.*\d$|^dict-freedict-"
)

APT_OPTIONS = """\
Dir::State::Lists "{lists}";
Acquire::IndexTargets::deb::DEP-11 {{
  MetaKey "$(COMPONENT)/dep11/Components-$(NATIVE_ARCHITECTURE).yml";
  ShortDescription "Components";
  Description "AppStream metadata";
}};
"""


@dataclass(frozen=True)
class Package:
    """One program as Debian describes it.

    `short` is the one-line description, `long` the paragraphs after it with the
    line breaks taken out, `summary` AppStream's line ("" where it has none).
    """

    name: str
    source: str
    section: str
    short: str
    long: str
    summary: str
    tags: frozenset[str]


def fetch(directory: Path) -> None:
    """Downloads the index and the data packages into `directory` by apt.

    Raises `subprocess.CalledProcessError` when apt fails; apt has said why.
    """
    lists = directory.resolve() / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    config = directory / "apt.conf"
    config.write_text(APT_OPTIONS.format(lists=lists), encoding="utf-8")
    # On the command line, because the slim images switch translations off in a
    # file that is read after APT_CONFIG.
    apt = [
        "apt-get",
        f"-oDir::State::Lists={lists}",
        "-oAcquire::Languages=en",
        "-oAPT::Sandbox::User=root",
    ]
    environment = {"APT_CONFIG": str(config.resolve()), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    subprocess.run([*apt, "update"], check=True, env=environment)
    subprocess.run([*apt, "download", *DATA_PACKAGES], check=True, env=environment, cwd=directory)
    for name in DATA_PACKAGES:
        (archive,) = directory.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive.name, name], check=True, cwd=directory)


def read_packages(directory: Path) -> list[Package]:
    """The programs in the index that `fetch` left in `directory`, sorted by name."""
    descriptions = _read_descriptions(directory)
    summaries = _read_summaries(directory)
    packages: dict[str, Package] = {}
    for path in sorted(directory.glob("lists/*_trixie_main_binary-*_Packages*")):
        for fields in _paragraphs(_read(path)):
            package = _package(fields, descriptions, summaries)
            if package is not None:
                packages[package.name] = package
    return _distinct(packages)


def _package(
    fields: dict[str, str], descriptions: dict[str, str], summaries: dict[str, str]
) -> Package | None:
    name, section = fields["Package"], fields.get("Section", "")
    if section in SKIPPED_SECTIONS or _SKIPPED_NAMES.search(name):
        return None
    short = fields.get("Description", "")
    long = descriptions.get(fields.get("Description-md5", ""), "")
    if len(long) < 60 or re.search(
        r"transitional|dummy|metapackage|meta-package", short + long, re.IGNORECASE
    ):
        return None
    tags = frozenset(re.split(r",\s*", fields["Tag"])) if "Tag" in fields else frozenset[str]()
    source = fields.get("Source", name).split()[0]
    return Package(name, source, section, short, long, summaries.get(name, ""), tags)


def _distinct(packages: dict[str, Package]) -> list[Package]:
    """One package per long description, the one with the shortest name."""
    chosen: dict[str, Package] = {}
    for package in sorted(packages.values(), key=lambda p: (len(p.name), p.name)):
        chosen.setdefault(package.long[:160], package)
    return sorted(chosen.values(), key=lambda p: p.name)


def _read(path: Path) -> str:
    """The text of an index file, which apt may keep compressed."""
    output = subprocess.run(
        ["/usr/lib/apt/apt-helper", "cat-file", str(path)], check=True, stdout=subprocess.PIPE
    )
    return output.stdout.decode("utf-8", errors="replace")


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a Debian control file; continuation lines keep their breaks."""
    for paragraph in text.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line.startswith((" ", "\t")):
                fields[name] += "\n" + line[1:]
            elif ":" in line:
                name, value = line.split(":", 1)
                fields[name] = value.strip()
        if "Package" in fields:
            yield fields


def _read_descriptions(directory: Path) -> dict[str, str]:
    """Long descriptions by the MD5 that the index refers to them by."""
    descriptions = {}
    for path in sorted(directory.glob("lists/*_trixie_main_i18n_Translation-en*")):
        for fields in _paragraphs(_read(path)):
            _, _, long = fields.get("Description-en", "").partition("\n")
            descriptions[fields["Description-md5"]] = _unwrap(long)
    return descriptions


def _unwrap(long: str) -> str:
    """Joins wrapped lines; list items become sentences of their own."""
    lines: list[str] = []
    for line in long.splitlines():
        text = line.strip()
        if text in ("", "."):
            lines.append("")
        elif re.match(r"[*+o-] ", text):
            lines += ["", text[2:]]
        else:
            lines.append(text)
    parts = [" ".join(part.split()) for part in re.split(r"\n\n+", "\n".join(lines))]
    return " ".join(
        part if part.endswith((".", "!", "?", ":")) else part + "." for part in parts if part
    )


def _read_summaries(directory: Path) -> dict[str, str]:
    """AppStream's untranslated summary by package.

    Read by line: the file holds every translation, and a YAML parser needs
    minutes for what is two lines of each document.
    """
    summaries: dict[str, str] = {}
    for path in sorted(directory.glob("lists/*_trixie_main_dep11_Components-*")):
        for document in _read(path).split("\n---\n"):
            package = re.search(r"^Package: (\S+)$", document, re.MULTILINE)
            block = re.search(r"^Summary:\n((?:  .*\n)+)", document, re.MULTILINE)
            line = block and re.search(r"^  C: .*(?:\n    .*)*", block[1], re.MULTILINE)
            if package and line:
                summaries.setdefault(package[1], str(yaml.safe_load(line[0])["C"]))
    return summaries
