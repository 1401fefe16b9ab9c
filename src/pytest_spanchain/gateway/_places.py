"""Where the gateway's paths lead, and what a child's environment has to say for it to use them.

Invariant: in replay a child is given no key of its caller's for what the gateway stands for: neither the credentials of
the providers nor what is named after another upstream. The rest of the environment it has, also the credentials in it:
its tools run in replay, and may need them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..boundaries.clients._variables import GATEWAY
from ..errors import UsageError

DUMMY_KEY = "spanchain-replay"
"""Lets SDKs start that insist on a key."""

_LOCAL = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Provider:
    """A model API whose SDKs take their base URL from the environment.

    Args:
        name: first step of the gateway's path.
        variables: environment variables with the base URL.
        keys: environment variables with the key, as its SDKs read it first.
        url: where it is if nobody says otherwise.
        below: what the SDKs expect at the end of a base URL.
        others: environment variables with other credentials, which serve where there is no key.
    """

    name: str
    variables: tuple[str, ...]
    keys: tuple[str, ...]
    url: str
    below: str = ""
    others: tuple[str, ...] = ()


PROVIDERS = (
    Provider(
        "openai",
        ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        ("OPENAI_API_KEY",),
        "https://api.openai.com/v1",
        below="/v1",
        others=("OPENAI_ADMIN_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"),
    ),
    Provider(
        "anthropic",
        ("ANTHROPIC_BASE_URL",),
        ("ANTHROPIC_API_KEY",),
        "https://api.anthropic.com",
        others=("ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
    ),
    Provider(
        "gemini",
        ("GOOGLE_GEMINI_BASE_URL",),
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        "https://generativelanguage.googleapis.com",
    ),
)
"""Read by the SDKs of Python and Node: openai, anthropic, google-genai and ``@google/genai``."""


@dataclass(frozen=True)
class Upstream:
    """Where requests below a path go.

    Args:
        name: first step of the path.
        url: base URL of the real thing, without a slash at its end.
        prefix: the gateway's path that stands for it.
        mcp: whether it is an MCP server.
    """

    name: str
    url: str
    prefix: str
    mcp: bool = False

    def target(self, path: str, query: str) -> str | None:
        """The real URL of a request to the gateway; ``None`` if it is none of this one's."""
        if path != self.prefix and not path.startswith(f"{self.prefix}/"):
            return None
        return f"{self.url}{path[len(self.prefix) :]}" + (f"?{query}" if query else "")


def upstreams(given: Mapping[str, str], *, environ: Mapping[str, str]) -> dict[str, Upstream]:
    """All upstreams by name: what the caller says, else what the environment says, else the public ones.

    Raises:
        UsageError: a name or a URL that cannot be one.
    """
    found = {}
    for one in PROVIDERS:
        said = next((environ[name] for name in one.variables if environ.get(name)), one.url)
        found[one.name] = upstream(one.name, given.get(one.name, said), below=one.below)
    for name, url in given.items():
        found.setdefault(name, upstream(name, url))
    return found


def upstream(name: str, url: str, *, below: str = "", mcp: bool = False) -> Upstream:
    """One of them.

    Raises:
        UsageError: a name or a URL that cannot be one.
    """
    if not name.replace("-", "").replace("_", "").isalnum() or name in ("v1", "mcp"):
        raise UsageError(f"gateway: {name!r} cannot be the name of an upstream: letters, digits, - and _")
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"gateway: the upstream {name!r} needs an http or https URL, not {url!r}")
    prefix = f"/mcp/{name}" if mcp else f"/{name}{below}"
    return Upstream(name, url.rstrip("/"), prefix, mcp=mcp)


def variables(
    *, url: str, traceparent: str, records: bool, environ: Mapping[str, str], names: Iterable[str]
) -> dict[str, str]:
    """What a child's environment needs besides its parent's.

    Args:
        url: of the gateway.
        traceparent: of the span that the child's belong below.
        records: whether real keys are needed.
        environ: the parent's environment.
        names: of all upstreams.
    """
    found = {"TRACEPARENT": traceparent, GATEWAY: url}
    for one in PROVIDERS:
        found.update(dict.fromkeys(one.variables, f"{url}/{one.name}{one.below}"))
        known = [key for key in (*one.keys, *one.others) if environ.get(key)]
        if not (records and known):  # beside a real credential, a dummy would be what the SDK prefers
            found.update(dict.fromkeys((*one.keys, *known), DUMMY_KEY))
    if not records:
        found.update(dict.fromkeys(_named_after(names, environ), DUMMY_KEY))
    protocol = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    found["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
    found["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol if protocol.startswith("http/") else "http/protobuf"
    for signal in ("traces", "metrics", "logs"):  # where they are set, they win over the general ones
        name = f"OTEL_EXPORTER_OTLP_{signal.upper()}"
        if f"{name}_ENDPOINT" in environ:
            found[f"{name}_ENDPOINT"] = f"{url}/v1/{signal}"
        if f"{name}_PROTOCOL" in environ:
            found[f"{name}_PROTOCOL"] = found["OTEL_EXPORTER_OTLP_PROTOCOL"]
    # A proxy of the machine's has no way to a server of this process.
    direct = ",".join(filter(None, (environ.get("NO_PROXY") or environ.get("no_proxy"), *_LOCAL)))
    return {**found, "NO_PROXY": direct, "no_proxy": direct}


def _named_after(names: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """Credentials that are named after upstreams: ``MISTRAL_API_KEY`` after ``mistral``."""
    own = "|".join(re.escape(name.replace("-", "_")) for name in names)
    credential = re.compile(rf"(?:{own})_(?:\w+_)?(?:KEY|TOKEN|SECRET)", re.IGNORECASE)
    return [name for name, value in environ.items() if value and credential.fullmatch(name)]


def refusal(name: str, message: str) -> dict[str, Any]:
    """The body of an error in a provider's own words, so that its SDK shows the message."""
    if name == "anthropic":
        return {"type": "error", "error": {"type": "spanchain_error", "message": message}}
    if name == "gemini":
        return {"error": {"code": 424, "message": message, "status": "FAILED_PRECONDITION"}}
    return {"error": {"message": message, "type": "spanchain_error", "param": None, "code": "spanchain_error"}}
