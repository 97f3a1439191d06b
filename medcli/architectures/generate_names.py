"""Writes `timm_names.txt`, so that names, sizes and licences of timm's models are known without importing timm.

`python -m medcli.architectures.generate_names` writes the file, `--check` only compares. `registry.namespaces`
documents the format.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

__all__ = ["FILE", "main", "render"]

FILE = Path(__file__).with_name("timm_names.txt")


def render() -> str:
    """The whole file for the timm that is installed."""
    import timm
    from timm.models import get_pretrained_cfg

    tags: dict[str, list[str]] = {}
    for name in timm.list_pretrained():
        base, _, tag = name.partition(".")
        if tag:
            tags.setdefault(base, []).append(tag)
    lines = [f"# timm {timm.__version__} timm/{{name}}.{{tag}}"]
    for name in timm.list_models():
        config = get_pretrained_cfg(name)
        own = tags.get(name, [])
        if config is not None and config.tag in own:
            own = [config.tag, *(tag for tag in own if tag != config.tag)]
        configs = {tag: get_pretrained_cfg(f"{name}.{tag}") for tag in own}
        pairs = " ".join(f"{tag}:{_word(configs[tag].license)}{_elsewhere(name, tag, configs[tag])}" for tag in own)
        facts = _facts(config)
        lines.append("\t".join((name, *facts, pairs)).rstrip("\t"))
        lines += ["\t".join((f"{name}.{tag}", *_facts(configs[tag]))) for tag in own if _facts(configs[tag]) != facts]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write or check; 0 when the file is, or was, as it should be."""
    text = render()
    if "--check" in arguments:
        return 0 if FILE.is_file() and FILE.read_text(encoding="utf-8") == text else 1
    FILE.write_text(text, encoding="utf-8")
    return 0


def _facts(config: Any) -> tuple[str, ...]:
    """Side, mean, standard deviation, interpolation and crop of one pretrained configuration."""
    if config is None:
        return ("", "", "", "", "")
    side = config.input_size[-1] if config.input_size else ""
    crop = f"{config.crop_pct:g}" if config.crop_pct else ""
    return (str(side), _numbers(config.mean), _numbers(config.std), config.interpolation or "", crop)


def _numbers(values: Any) -> str:
    return ",".join(str(value) for value in values or ())


def _elsewhere(name: str, tag: str, config: Any) -> str:
    """`:SOURCE` for weights that are not in timm's own repository of that name, else nothing."""
    source = config.hf_hub_id or config.url
    return "" if not source or source == f"timm/{name}.{tag}" else f":{source}"


def _word(licence: Any) -> str:
    return str(licence or "").replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
