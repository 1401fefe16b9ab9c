"""OpenAI's APIs, and the servers that speak them: most of all."""

from . import chat, media, responses

APIS = (chat.CHAT, chat.COMPLETIONS, responses.RESPONSES, *media.APIS)
