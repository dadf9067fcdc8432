"""Makes tokenizer.json: awkward strings and their token ids by llama.cpp.

Made with llama-cpp-python 0.3.36 (llama.cpp 0.5.0-dev).

usage: tokenizer.py MODEL
"""

import json
import sys
from pathlib import Path

from oracle import VERSIONS, Model

STRINGS = [
    "",
    " ",
    "  ",
    "   ",
    "\t",
    "\t\t\tindented",
    "\n",
    "\n\n",
    "\n\n\n\n\n",
    "\r\n",
    "line one\r\nline two\r\n\r\nline four\r",
    " \n \n  \n",
    "Hello",
    " Hello",
    "  Hello",
    "       seven spaces",
    "Hello world",
    "Hello  world   and    more     ",
    "trailing space ",
    "trailing newline\n",
    "Hello, y'all! How are you? I'm fine; we've they'd HE'LL it'S",
    "don't DON'T 'tis o'clock 's 're",
    "0",
    "3",
    "33",
    "333",
    "3333",
    "33333333333",
    "1,234,567.89 and -0.5e-10 or 0xDEADBEEF",
    "IPv4 192.168.0.1:8080 at 23:59:59.999",
    "\u0663\u0664 \u00bd \u2167 \u00b2\u00b3 \u4e94",
    "a1b2c3 x86_64 utf-8",
    "snake_case camelCase SCREAMING_CASE kebab-case",
    "def f(x):\n    if x:\n        return x ** 2  # note\n\treturn None\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * c; }",
    '{"key": [1, 2.5, null, true], "na\\u00efve": "\\n"}',
    "<div class=\"x\">&nbsp;</div><!-- -->",
    "SELECT * FROM t WHERE a='b' AND c<>d;",
    "https://example.com/a/b?q=1&r=%20#frag",
    "\\ \\\\ \\n \\u0041 $x^2$ `code` ~/.bashrc",
    "...!!!???---___***///",
    "\u201cquotes\u201d \u2018single\u2019 \u2014 dash \u2026 \u00ab\u00bb",
    "caf\u00e9 na\u00efve \u00fcber stra\u00dfe \u0130stanbul \u01c5",
    "cafe\u0301 nai\u0308ve a\u0300\u0301\u0302\u0303\u0304",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0397 \u03c3\u03c6\u03af\u03b3\u03b3\u03b1",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 \ud55c\uad6d\uc5b4",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\u1e9a \ufb01ligature \u2126 \u212b \uff21\uff22\uff23",
    "\U0001f600",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f1eb\U0001f1f7 \U0001f44d\U0001f3fd \u2764\ufe0f",
    "\U0001d54a\U0001d556\U0001d565 \U00020000 \U0010ffff",
    "zero\u200bwidth\u200djoin\ufeffbom\u00adsoft",
    "\u00a0nbsp\u00a0\u00a0two\u2003em\u3000wide\u2028ls\u2029ps\u0085nel",
    "\x00nul\x01\x07\x1b[31mred\x7f",
    "\u202eright-to-left\u202c \u2066isolate\u2069",
    "Z\u0351\u036b\u0343a\u0335\u0321l\u0334g\u0337o\u0338",
    "\ufffd\ufffe \ue000",
    "a" * 300,
    "Donaudampfschifffahrtsgesellschaftskapit\u00e4nsm\u00fctzenabzeichen",
    " " * 100 + "x",
    "=" * 81,
    "\U0001f999" * 20,
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|>",
    "a<|endoftext|>b <|endoftext|> c",
    "<|im_start|><|im_start|> <|im_end|>\n\n",
    "<|im_start |> <|IM_START|> <|im_start<|im_end|>",
    "<repo_name>x<file_sep>y<reponame><jupyter_code>1 <empty_output>",
]


def main(path):
    model = Model(path)
    cases = []
    for text in STRINGS:
        case = {"text": text}
        for name, special in ("plain", False), ("special", True):
            ids = model.tokenize(text, special=special)
            case[name] = ids
            case[f"{name}_text"] = model.detokenize(ids).decode()
        # What is left when control tokens aren't written out.
        case["hidden_text"] = model.detokenize(case["special"], special=False).decode()
        cases.append(case)
    golden = {"made_with": VERSIONS, "cases": cases}
    target = Path(__file__).parent.parent / "tokenizer.json"
    target.write_text(json.dumps(golden, separators=(",", ":")).replace('{"text"', '\n{"text"') + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
