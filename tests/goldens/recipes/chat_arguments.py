"""Makes chat-arguments.json: templates of public models with tools and switches, rendered by jinja2.

usage: chat_arguments.py

The templates are those in `templates/`, which chat_templates.py puts there. For each there is a hash of the text for each
set of arguments, or null where the template refuses or can't take them.
"""

import json
from pathlib import Path

import jinja2
from chat_environment import environment
from chat_templates import hashed, said

FOLDER = Path(__file__).parent.parent
CONVERSATION = said(("s", "Be brief."), ("u", "How warm is it in Paris?"))
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tells the weather <b>now</b>.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Où? \"Paris\""},
                    "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
                    "days": {"type": "integer", "minimum": 1, "maximum": 1.5e3},
                },
                "required": ["city"],
            },
        },
    }
]
ARGUMENTS = [
    {"enable_thinking": False},
    {"enable_thinking": True},
    {"thinking": True, "reasoning_effort": "high"},
    {"tools": TOOLS},
    {"tools": TOOLS, "enable_thinking": False, "documents": [{"text": "B", "title": "A"}]},
]


def render(template, arguments):
    plain = {"bos_token": "<s>", "eos_token": "</s>", "tools": None, "documents": None}
    try:
        return hashed(template.render(messages=CONVERSATION, add_generation_prompt=True, **(plain | arguments)))
    except (jinja2.TemplateError, TypeError, AttributeError, KeyError):
        return None


def main():
    golden = {"messages": CONVERSATION, "arguments": ARGUMENTS, "texts": {}}
    for path in sorted(FOLDER.joinpath("templates").glob("*.jinja")):
        # Times of day differ from run to run. What jinja2 adds to a text that is `safe` it escapes for HTML, which the
        # library doesn't.
        source = path.read_bytes().decode()
        if "strftime_now" in source or "|safe" in source:
            continue
        template = environment().from_string(source)
        golden["texts"][path.name] = [render(template, arguments) for arguments in ARGUMENTS]
    FOLDER.joinpath("chat-arguments.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
