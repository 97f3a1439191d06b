"""The promises of `medcli.plugin`: all of them for the small network, of the large ones those that compute nothing."""

from __future__ import annotations

import pytest

from medcli.testing import conformance

BY_NAME = ["discoverable", "card", "listing-is-light", "import-alone"]
WEIGHTLESS = ["outline", "channels", "options"]

test_conformance_of_names = conformance("medcli-retfound", only=BY_NAME)
test_conformance_of_green = conformance("retfound-green")
test_conformance_of_mae = conformance("retfound-oct", only=WEIGHTLESS)
test_conformance_of_dinov2 = conformance("retfound-dinov2-meh", only=WEIGHTLESS)
test_conformance_at_true_size = pytest.mark.slow(conformance("retfound-cfp"))
