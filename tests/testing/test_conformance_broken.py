"""Each check fails on a network that breaks just that promise; `conftest` holds the one that keeps them all."""

from __future__ import annotations

import pytest

FORWARD = "        features = self.out((hidden + branch).mean((2, 3)))\n"
RETURN = "        return features\n"
INIT = "        self.out = nn.Linear(4, width)\n"
BUILD = "    return Net(in_channels, width, drop_path)\n"
BROKEN = {
    "card: unknown key": ("card", "is no known key", ("feature_dim = 8", "feature_dims = 8")),
    "card: another name": (
        "card",
        "no table `[architectures.fake-net]`",
        ("[architectures.fake-net", "[architectures.fake-not"),
    ),
    "card: a name too many": (
        "card",
        "no entry point",
        ("[architectures.fake-net]", '[architectures.two]\nsummary = "x"\n\n[architectures.fake-net]'),
    ),
    "import: prints": ("import-alone", "stdout", ("import torch\n", 'import torch\n\nprint("hello")\n')),
    "import: exits": ("import-alone", "status", ("import torch\n", "import sys\n\nsys.exit(3)\n")),
    "import: leans on others": (
        "import-alone",
        "AssertionError",
        ("import torch\n", 'import sys\n\nassert "pytest" in sys.modules\nimport torch\n'),
    ),
    "outline: reads a weight": (
        "outline",
        "meta device",
        (INIT, INIT + "        self.scale = float(self.out.weight.sum())\n"),
    ),
    "outline: real tensors": (
        "outline",
        "still take memory: `extra`",
        (INIT, INIT + '        self.extra = nn.Parameter(torch.ones(3, device="cpu"))\n'),
    ),
    "facts: params": ("facts", "`params` is 237 in the card and 236", ("params = 236", "params = 237")),
    "facts: width": ("facts", "`feature_dim` is 9 in the card and 8", ("feature_dim = 8", "feature_dim = 9")),
    "facts: stages": ("facts", "`stages` is 3 in the card and 2", ("stages = 2", "stages = 3")),
    "facts: blocks": ("facts", "`blocks` is 2 in the card and 3", ("blocks = 3", "blocks = 2")),
    "channels: refused": (
        "channels",
        "at most 3",
        (BUILD, '    if in_channels > 3:\n        raise UsageProblem("at most 3")\n' + BUILD),
    ),
    "channels: ignored": (
        "channels",
        "with 3 channels the forward pass raised",
        (BUILD, "    return Net(1, width, drop_path)\n"),
    ),
    "sizes: one only": (
        "sizes",
        "pixels",
        (BUILD, '    if image_size != 32:\n        raise UsageProblem("32 only")\n' + BUILD),
    ),
    "sizes: own card": (
        "sizes",
        "`input_size` is 32, which",
        ("minimum = 8, multiple = 2", "minimum = 7, multiple = 7"),
    ),
    "options: refused": (
        "options",
        "with `bias=no`",
        (BUILD, '    if bias == "no":\n        raise UsageProblem("no bias")\n' + BUILD),
    ),
    "options: unknown": ("options", "unexpected keyword", ('width=8, bias="yes"', "width=8")),
    "options: other default": ("options", "the default is 8 in the card and 9", ("width=8", "width=9")),
    "options: default acts": (
        "options",
        "another than without",
        ("width=8, bias=", "width=None, bias="),
        (BUILD, "    return Net(in_channels, width or 9, drop_path)\n"),
    ),
    "drop path: ignored": ("drop-path", "all equal", ("if self.training and self.drop_path", "if False")),
    "drop path: swallowed": ("drop-path", "without a word", ("drop_path = true", "drop_path = false")),
    "drop path: refused": (
        "drop-path",
        "is refused",
        (BUILD, '    if drop_path:\n        raise UsageProblem("none")\n' + BUILD),
    ),
    "output: width": ("output", "not [3, 9]", ("self.feature_dim = width", "self.feature_dim = width + 1")),
    "output: no width": ("output", "needs `feature_dim`", ("        self.feature_dim = width\n", "")),
    "output: tuple": ("output", "tuple", (RETURN, "        return features, hidden\n")),
    "output: type": ("output", "float64", (RETURN, "        return features.double()\n")),
    "finite: black": (
        "finite",
        "black pictures",
        (RETURN, "        return features + images.std((1, 2, 3)).log()[:, None] * 0\n"),
    ),
    "finite: always": ("finite", "NaN", (RETURN, "        return features * float('nan')\n")),
    "batch: statistics": (
        "batch-of-one",
        "differs from itself",
        (RETURN, "        return features - features.mean(0)\n"),
    ),
    "batch: squeezed": ("batch-of-one", "a batch of one gives [8]", (RETURN, "        return features.squeeze()\n")),
    "eval: noise": (
        "deterministic",
        "two passes differ",
        (RETURN, "        return functional.dropout(features, 0.5, training=True)\n"),
    ),
    "eval: counts": (
        "deterministic",
        "changes `seen`",
        (INIT, INIT + '        self.register_buffer("seen", torch.zeros(()))\n'),
        (RETURN, "        self.seen += 1\n" + RETURN),
    ),
    "gradients: unused": (
        "gradients",
        "take no part in the output: `extra`",
        (INIT, INIT + "        self.extra = nn.Parameter(torch.ones(3))\n"),
    ),
    "gradients: detached": (
        "gradients",
        "`stem.weight`",
        ("branch = self.block(hidden)", "hidden = hidden.detach()\n        branch = self.block(hidden)"),
    ),
    "gradients: dead": (
        "gradients",
        "get a gradient of zero",
        (FORWARD, "        features = self.out((hidden + branch).mean((2, 3)) * 0)\n"),
    ),
    "gradients: none": (
        "gradients",
        "no trainable parameter",
        (BUILD, "    return Net(in_channels, width, drop_path).requires_grad_(False)\n"),
    ),
    "seed: another's": (
        "seed",
        "sets the seed",
        (BUILD, "    network = Net(in_channels, width, drop_path)\n    torch.manual_seed(0)\n    return network\n"),
    ),
    "seed: fixed unsaid": (
        "seed",
        "seeds 0 and 1 give the same weights",
        (BUILD, "    torch.manual_seed(0)\n" + BUILD),
    ),
    "seed: time": ("seed", "built twice from seed 0", (BUILD, "    torch.seed()\n" + BUILD)),
    "seed: not fixed": ("seed", "says `fixed_weights = True`", (INIT, INIT + "        self.fixed_weights = True\n")),
    "groups: missing": ("groups", "in no group: `norm.bias`", (', "norm.bias")', ")")),
    "groups: twice": ("groups", "more than one group: `out.bias`", ('"block.bias")', '"block.bias", "out.bias")')),
    "groups: no parameter": ("groups", "names of no parameter: `out.gain`", ('"out.bias")', '"out.bias", "out.gain")')),
    "groups: no module": ("groups", "names of no module: `blocks`", ('("block",)', '("blocks",)')),
    "groups: none": (
        "groups",
        "is empty",
        (
            "    def layer_groups(self):\n",
            "    def layer_groups(self):\n        return ()\n\n    def old_groups(self):\n",
        ),
    ),
    "order: swapped": (
        "group-order",
        "used before it",
        (
            'LayerGroup("block", 1, ("block.weight", "block.bias"), ("block",))',
            'LayerGroup("o", 1, ("out.weight", "out.bias"), ("out",))',
        ),
        (
            'LayerGroup("out", 1, ("out.weight", "out.bias"), ("out",))',
            'LayerGroup("b", 1, ("block.weight", "block.bias"), ("block",))',
        ),
    ),
    "order: gap": ("group-order", "stage 2 after stage 0", ('"block", 1', '"block", 2'), ('"out", 1', '"out", 2')),
    "order: falls": ("group-order", "stage 0 after stage 1", ('"out", 1', '"out", 0')),
    "order: stem": ("group-order", "stage 0, the stem", ('"stem", 0', '"stem", 1')),
    "state: hidden": (
        "state-dict",
        "neither a parameter nor",
        (INIT, INIT + "        self.secret = torch.rand(4)\n"),
        (RETURN, "        return features * self.secret.sum()\n"),
    ),
    "state: not kept": (
        "state-dict",
        "neither a parameter nor",
        (INIT, INIT + '        self.register_buffer("secret", torch.rand(4), persistent=False)\n'),
        (RETURN, "        return features * self.secret.sum()\n"),
    ),
    "file: no tensor": (
        "safetensors",
        "is a dict, not a tensor",
        (
            "    def layer_groups",
            "    def get_extra_state(self):\n        return {}\n\n"
            "    def set_extra_state(self, state):\n        pass\n\n    def layer_groups",
        ),
    ),
    "attention: none": ("attention", "`attention_maps = true`", ("def attention_maps", "def other_maps")),
    "attention: unsaid": ("attention", "`attention_maps = false`", ("attention_maps = true", "attention_maps = false")),
    "attention: logits": (
        "attention",
        "add up to 1",
        ("torch.softmax(images.new_zeros(len(images), 2, 5, 5), -1)", "images.new_zeros(len(images), 2, 5, 5)"),
    ),
    "attention: shape": ("attention", "[B, heads, N, N]", ("len(images), 2, 5, 5", "len(images), 5, 5")),
    "lora: matches nothing": ("lora", "`*.qkv` matches no module", ('mlp = ["out"]', 'mlp = ["out", "*.qkv"]')),
    "lora: matches a norm": ("lora", "none of them a linear layer", ('mlp = ["out"]', 'mlp = ["norm"]')),
    "lora: dead": (
        "lora",
        "get no gradient",
        (
            "self.out((hidden + branch).mean((2, 3)))",
            "functional.linear((hidden + branch).mean((2, 3)), self.out.weight, self.out.bias)",
        ),
    ),
    "export: branches": (
        "torch-export",
        "cannot capture",
        (RETURN, "        if features.sum() > 0:\n            return features * 2\n" + RETURN),
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_each_broken_promise_is_found(verdict, fault: str) -> None:
    check, words, *changes = BROKEN[fault]
    found = verdict(check, *changes)
    assert found.outcome == "failed", found.reason
    assert words in found.reason


def test_what_onnx_cannot_express_is_found(verdict) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    found = verdict("onnx", (RETURN, "        return torch.special.bessel_j0(features)\n"))
    assert found.outcome == "failed"
    assert "`torch.onnx` cannot export it: the network uses the operator `prims.bessel_j0`" in found.reason
