"""What the releases of the SDKs differ in, as far as tests have to know."""

from __future__ import annotations

import sys
from typing import Any

from openai import DefaultHttpxClient

http: Any = sys.modules[DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]
"""``httpx`` or ``httpx2``: what the installed release of openai is built on."""
