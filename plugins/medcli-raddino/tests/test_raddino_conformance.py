"""What every plugin promises, checked by medcli's own kit."""

from __future__ import annotations

from medcli.testing import conformance

test_conformance = conformance("medcli-raddino")
