"""The smallest agent: one call to the model with a plain HTTP client, which costs a hundredth of an SDK's."""

from __future__ import annotations

import os

import httpx2


def ask(prompt: str) -> str:
    """Ask the model at ``OPENAI_BASE_URL``; what goes wrong is raised."""
    with httpx2.Client(verify=False, trust_env=False) as client:
        return _said(client.post(_url(), json=_body(prompt)))


async def aask(prompt: str) -> str:
    """The same, async."""
    async with httpx2.AsyncClient(verify=False, trust_env=False) as client:
        return _said(await client.post(_url(), json=_body(prompt)))


def swallow(prompt: str) -> str:
    """The same, but whatever goes wrong is taken for an answer."""
    try:
        return ask(prompt)
    except Exception:  # noqa: BLE001 - this is what it is for
        return "no answer"


def _url() -> str:
    return f"{os.environ['OPENAI_BASE_URL']}/chat/completions"


def _body(prompt: str) -> dict[str, object]:
    return {"model": "gpt-test", "messages": [{"role": "user", "content": prompt}]}


def _said(response: httpx2.Response) -> str:
    response.raise_for_status()
    text: str = response.json()["choices"][0]["message"]["content"]
    return text
