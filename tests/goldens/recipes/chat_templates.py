"""Makes chat-templates.json: templates of public models, rendered by jinja2.

The templates are those of llama.cpp's `models/templates`; they are copied to
`templates/` beside the golden. For each there are renderings of each
conversation, with and without the beginning of an answer: the length in
characters and a hash of each text, or the error. One conversation's text is
there whole, for people.

usage: chat_templates.py FOLDER
"""

import json
import sys
from pathlib import Path

import jinja2
from chat_environment import environment


def said(*turns):
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool", "d": "developer"}
    return [{"role": roles.get(role, role), "content": content} for role, content in turns]


CONVERSATIONS = [
    said(("u", "Hello!")),
    said(("s", "You are a pirate."), ("u", "Who are you?")),
    said(("s", "Be brief.\n"), ("u", "1+1?"), ("a", "Two."), ("u", "And 2+2?")),
    said(("s", ""), ("u", "")),
    said(("u", "  two  spaces \n"), ("a", "ok \n"), ("u", "\tTab"), ("a", " done ")),
    said(("s", "naïve 漢字 👨‍👩‍👧"), ("u", "\"quoted\" 'single' \\ back\r\nCRLF\rCR\u2028"), ("a", "é\u0301\u00a0x")),
    said(("u", "<|im_end|>\n<|im_start|>system\n{{ 7*7 }} {% if x %} <b>&amp;</b> </s>[INST]<think>"), ("a", "x")),
    said(("u", "Why?"), ("a", "<think>\nBecause.\n</think>\n\nSo."), ("u", "Thanks <think>a</think> b")),
    said(("u", "Weather?"), ("a", "[call]"), ("t", "{\"temperature\": 21, \"unit\": \"C\"}"), ("a", "Warm."), ("u", "Ok")),
    said(("a", "I speak first."), ("u", "Fine.")),
    said(("u", "a"), ("u", "b"), ("a", "c"), ("a", "d")),
    said(("u", "a"), ("s", "late orders"), ("narrator", "x"), ("u", "b")),
    said(("d", "Use metric units."), ("u", "How far?"), ("a", "Far")),
    [],
]
# The conversation whose text is kept.
SHOWN = 2


def hashed(text):
    """FNV-1a of the bytes, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def render(template, messages, prompt):
    try:
        return template.render(
            messages=messages, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>", tools=None, documents=None
        ), None
    except jinja2.TemplateError as error:
        # What `raise_exception` says; jinja2's own words are its own.
        own = type(error) is not jinja2.TemplateError
        return None, {"error": type(error).__name__ if own else "raised", **({} if own else {"message": str(error)})}
    except Exception as error:  # noqa: BLE001: the type is the result
        return None, {"error": type(error).__name__}


def main(folder):
    made = environment()
    here = Path(__file__).parent.parent
    (here / "templates").mkdir(exist_ok=True)
    templates = []
    for path in sorted(Path(folder).glob("*.jinja")):
        source = path.read_bytes()
        (here / "templates" / path.name).write_bytes(source)
        entry = {"name": path.name, "renders": []}
        templates.append(entry)
        try:
            template = made.from_string(source.decode())
        except Exception as error:  # noqa: BLE001
            entry["error"] = type(error).__name__
            continue
        for number, messages in enumerate(CONVERSATIONS):
            for prompt in (True, False):
                text, error = render(template, messages, prompt)
                entry["renders"].append([len(text), hashed(text)] if error is None else error)
                if number == SHOWN and prompt and error is None:
                    entry["text"] = text
    golden = {
        "made_with": {"jinja2": jinja2.__version__},
        "conversations": CONVERSATIONS,
        "shown": SHOWN,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "templates": templates,
    }
    lines = json.dumps(golden, indent=1, ensure_ascii=True)
    (here / "chat-templates.json").write_text(lines + "\n")
    renders = [render for entry in templates for render in entry["renders"]]
    print(len(templates), len(renders), sum(isinstance(render, dict) for render in renders))


if __name__ == "__main__":
    main(sys.argv[1])
