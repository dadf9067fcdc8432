"""Makes chat-lines.json: small templates with what jinja2 renders or raises.

Each uses a filter, test, method, operator, statement or formatting of jinja2
under CPython, with usual and unusual arguments. Made with jinja2 3.1.6 and
CPython 3.11 or later.

usage: chat_lines.py
"""

import copy
import json
from pathlib import Path

import jinja2
from chat_environment import environment

MESSAGES = [
    {"role": "system", "content": "Be brief.\n"},
    {"role": "user", "content": " What's 2+2? "},
    {"role": "assistant", "content": "4"},
]

LINES = r"""
{{ 'Hello World'|lower }}|{{ 'straße'|upper }}|{{ 'hELLO wORLD'|capitalize }}
{{ 'ab-cd ef(gh [ij {kl <mn'|title }}
{{ "they're bill's friends"|title }}|{{ "they're bill's friends".title() }}
{{ '  a b '|trim }}|{{ 'xxaxx'|trim('x') }}|{{ 12|trim }}|{{ none|trim }}
{{ 'a,b;c'|replace(',', ';') }}|{{ 'aaaa'|replace('a', 'b', 2) }}|{{ 'aaaa'|replace('a', 'b', count=3) }}
{{ 121|replace('1', 'x') }}|{{ 'a1a'|replace(1, 2) }}|{{ 'abc'|replace('', '-') }}
{{ [1, 'a', none, true, 1.5]|join('-') }}|{{ ['a']|join }}|{{ 'abc'|join('.') }}|{{ {'x': 1, 'y': 2}|join(',') }}
{{ [{'a': 1}, {'a': 2}]|join(', ', attribute='a') }}|{{ [[1, 2], [3, 4]]|join('/', attribute=1) }}
{{ [{'a': {'b': 'x'}}, {'a': {'b': 'y'}}]|join(attribute='a.b') }}
{{ [[1, 2], {'a': 'b'}]|join(' ') }}
{{ undef|join(',') }}|
{{ none|join(',') }}
{{ 5|join(',') }}
{{ undef|default('d') }}|{{ none|default('d') }}|{{ ''|default('d') }}|{{ ''|default('d', true) }}|{{ none|d('d', boolean=true) }}|{{ undef|default }}|
{{ 0|default(5, true) }}|{{ []|default([1], true) }}|{{ messages[0].tool|default({}) }}
{{ 'abc'|length }}|{{ [1, 2]|length }}|{{ {'a': 1}|count }}|{{ undef|length }}|{{ (1, 2, 3)|length }}|{{ ''|length }}
{{ 5|length }}
{{ none|length }}
{{ 1.5|length }}
{{ true|length }}
{{ [3, 1, 2]|first }}|{{ [3, 1, 2]|last }}|{{ 'abc'|first }}|{{ 'abc'|last }}|{{ []|last }}|{{ {'a': 1}|first }}|{{ {'a': 1, 'b': 2}|last }}
{{ none|first }}
{{ undef|last }}
{{ [3, 1, 2]|sort }}|{{ [3, 1, 2]|sort(reverse=true) }}|{{ ['b', 'A', 'c', 'B']|sort }}|{{ ['b', 'A', 'c', 'B']|sort(case_sensitive=true) }}
{{ [{'n': 2}, {'n': 1}]|sort(attribute='n') }}|{{ [{'a': 1, 'b': 2}, {'a': 1, 'b': 1}]|sort(attribute='a,b') }}
{{ [1, 'a']|sort }}
{{ [none, 1]|sort }}
{{ [[2, 1], [1, 2], [1]]|sort }}|{{ 'cab'|sort }}|{{ {'b': 1, 'a': 2}|sort }}|{{ [1.5, 1, true]|sort }}
{{ {'b': 1, 'A': 3, 'c': 2}|dictsort }}
{{ {'b': 1, 'A': 3, 'c': 2}|dictsort(case_sensitive=true) }}
{{ {'b': 1, 'A': 3, 'c': 2}|dictsort(by='value') }}|{{ {'b': 1, 'A': 3}|dictsort(false, 'value', true) }}
{{ {'b': 1, 'A': 3}|dictsort(reverse=true) }}
{{ {'b': 1}|dictsort(by='x') }}
{{ undef|dictsort }}
{{ [3, 1, 2]|max }}|{{ [3, 1, 2]|min }}|{{ ['b', 'A']|min }}|{{ ['b', 'A']|max(case_sensitive=true) }}|{{ []|max }}|{{ [{'a': 3}, {'a': 1}]|min(attribute='a') }}
{{ [3, 1.5, 2]|sum }}|{{ []|sum }}|{{ [[1], [2]]|sum(start=[]) }}|{{ [{'a': 1}, {'a': 5}]|sum(attribute='a') }}|{{ [1, 2]|sum(start=10) }}
{{ ['a', 'b']|sum }}
{{ [1, 1, 2, 1, 3]|unique|list }}|{{ ['a', 'A', 'b']|unique|list }}|{{ ['a', 'A']|unique(case_sensitive=true)|list }}|{{ [{'a': 1, 'b': 2}, {'a': 1, 'b': 3}]|unique(attribute='a')|list }}
{{ [[1], [1]]|unique|list }}
{{ 'abc'|reverse }}|{{ [1, 2, 3]|reverse|list }}|{{ ''|reverse }}|{{ (1, 2)|reverse|list }}
{{ 'abc'|list }}|{{ (1, 2)|list }}|{{ {'a': 1}|list }}|{{ undef|list }}|{{ range(3)|list }}
{{ 5|list }}
{{ none|list }}
{{ [1, [2, 3], {'a': none}]|string }}|{{ 1.0|string }}|{{ true|string }}|{{ undef|string }}|{{ none|string }}
{{ '42'|int }}|{{ '4.7'|int }}|{{ 'x'|int }}|{{ 'x'|int(7) }}|{{ 'x'|int(default=8) }}|{{ '0x1f'|int(base=16) }}|{{ 'ff'|int(0, 16) }}|{{ 3.9|int }}|{{ -3.9|int }}|{{ true|int }}|{{ none|int }}|{{ ' 12 '|int }}|{{ '1_000'|int }}|{{ []|int(1) }}|{{ '1e3'|int }}
{{ '101'|int(base=2) }}|{{ '0b11'|int(base=2) }}|{{ '077'|int(base=8) }}|{{ '--5'|int }}|{{ '-5'|int }}|{{ '+5'|int }}|{{ ''|int }}|{{ '٣'|int }}
{{ undef|int }}
{{ '3.5'|float }}|{{ 'x'|float }}|{{ 'x'|float(1.5) }}|{{ 2|float }}|{{ none|float }}|{{ '1e5'|float }}|{{ ' 1.5 '|float }}|{{ 'inf'|float }}|{{ 'nan'|float }}|{{ '1_0.5'|float }}
{{ undef|float }}
{{ 42.55|round }}|{{ 42.55|round(1) }}|{{ 42.45|round(1) }}|{{ 42.55|round(1, 'floor') }}|{{ 42.51|round(1, 'ceil') }}|{{ 42|round }}|{{ 2.5|round }}|{{ 3.5|round }}|{{ -2.5|round }}|{{ 1234.567|round(-2) }}|{{ 1250|round(-2) }}|{{ 0.125|round(2) }}|{{ 42|round(method='ceil') }}|{{ 7.1|round(0, 'floor')|int }}
{{ 'x'|round }}
{{ 1.5|round(1, 'up') }}
{{ -5|abs }}|{{ 5.5|abs }}|{{ -0.0|abs }}|{{ true|abs }}
{{ 'a'|abs }}
{{ [1, 2, 3, 4, 5]|batch(2)|list }}|{{ [1, 2, 3]|batch(2, 'x')|list }}|{{ []|batch(2)|list }}
{{ [1, 2, 3, 4, 5, 6, 7]|slice(3)|list }}|{{ [1, 2, 3, 4]|slice(3, 'x')|list }}|{{ 'abcd'|slice(2)|list }}
{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2) }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(2, blank=true) }}|{{ 'a\nb'|indent('> ') }}|{{ 'a\nb\n'|indent(2, first=true) }}|{{ ''|indent(2, true) }}
{{ 'abc'|center(10) }}|{{ 'abc'|center(2) }}|{{ 'ab'|center(5) }}|{{ 'abc'|center|length }}|{{ 5|center(4) }}|
{{ 'Hello big world'|wordcount }}|{{ "it's a-b_c"|wordcount }}|{{ ''|wordcount }}
{{ 'foo bar baz qux'|truncate(9) }}|{{ 'foo bar baz qux'|truncate(9, true) }}|{{ 'foo bar baz qux'|truncate(11) }}|{{ 'foo bar baz qux'|truncate(11, false, '...', 0) }}|{{ 'foobarbazqux'|truncate(5, leeway=0, end='!') }}
{{ '%s has %d'|format('a', 5) }}|{{ '%(x)s'|format(x=1) }}|{{ '%5.2f|%-5s|%05d|%x'|format(3.14159, 'ab', 42, 255) }}
{{ [1, 2, 3, 4]|select('odd')|list }}|{{ [1, 2, 3, 4]|reject('odd')|list }}|{{ [0, 1, '', 'a', none]|select|list }}|{{ [0, 1, '', 'a', none]|reject|list }}|{{ [1, 2, 3]|select('gt', 1)|list }}|{{ [1, 2, 3]|select('>', 1)|list }}|{{ [1, 2, 3, 4]|select('divisibleby', 2)|list }}|{{ ['a', 1]|select('string')|list }}|{{ [1, 2, 3]|reject('in', [1, 3])|list }}
{{ messages|selectattr('role', 'equalto', 'user')|list }}
{{ messages|selectattr('role', 'eq', 'user')|map(attribute='content')|list }}|{{ messages|rejectattr('role', 'in', ['user', 'system'])|map(attribute='role')|list }}|{{ messages|selectattr('tool')|list }}|{{ messages|rejectattr('tool', 'defined')|list|length }}|{{ messages|selectattr('role', '==', 'user')|first|tojson }}
{{ messages|selectattr('role', 'nope')|list }}
{{ ['a', 'b']|map('upper')|list }}|{{ ['a', 'b']|map('replace', 'a', 'x')|list }}|{{ [1, 2]|map('string')|join('+') }}|{{ [' a']|map('trim')|list }}|{{ [[1, 2], [3]]|map('length')|list }}|{{ [[3, 1]]|map('sort', reverse=true)|list }}|{{ messages|map(attribute='role')|join(',') }}|{{ [{'a': 1}, {}]|map(attribute='a', default='z')|list }}|{{ [{}]|map(attribute='a')|list }}
{{ ['a']|map('nope')|list }}
{{ [{'t': 'a', 'v': 1}, {'t': 'b', 'v': 2}, {'t': 'a', 'v': 3}]|groupby('t') }}
{% for g, items in [{'t': 'b', 'v': 1}, {'t': 'a', 'v': 2}]|groupby('t') %}{{ g }}={{ items|map(attribute='v')|list }};{% endfor %}
{{ ([{'t': 'a', 'v': 1}]|groupby('t'))[0].grouper }}
{{ {'a': 1, 'b': 2}|items|list }}|{{ undef|items|list }}
{{ [1]|items|list }}
{{ '<b>&"\''|e }}|{{ '<b>'|escape }}|{{ '<b>'|safe }}|{{ 5|e }}
{{ messages[0]|attr('role') }}|{{ 'a'|attr('nope') }}|
{{ {'a': [1, 2.5, true, none, 'é"\n']}|tojson }}
{{ [1, [], {}, [[]]]|tojson(indent=2) }}
{{ {'b': 1, 'a': {'d': 1, 'c': 2}}|tojson(sort_keys=true) }}|{{ {'a': 1, 'b': [1, 2]}|tojson(separators=(',', ':')) }}|{{ [1, 2]|tojson(indent=1, separators=(' ,', ' : ')) }}|{{ 'é漢😀'|tojson(ensure_ascii=true) }}|{{ 'é'|tojson(true) }}
{{ {1: 'a', none: 'b', true: 'c', 1.5: 'd'}|tojson }}
{{ {(1, 2): 'a'}|tojson }}
{{ '\x00\x1f\x7f\u2028<>&\'/'|tojson }}|{{ '\b\f\t\r'|tojson }}
{{ (1, 2)|tojson }}|{{ 1e100|tojson }}|{{ 1e16|tojson }}|{{ 1e-7|tojson }}|{{ 0.1|tojson }}|{{ -0.0|tojson }}|{{ 'x'|tojson|tojson }}
{{ range(3)|tojson }}
{{ messages.keys|tojson }}
{{ [undef]|tojson }}
{{ {'a': {'b': [1, {'c': none}]}}|tojson(indent=4) }}|{{ [1]|tojson(indent='--') }}|{{ [1, 2]|tojson(indent=0) }}|{{ {}|tojson(indent=2) }}
{{ [1]|tojson(2, 3, 4, 5, 6) }}
{{ [1, 2]|tojson(none, 2) }}
{{ 1|nope }}
{{ 1 is nope }}
{{ 'abc'.upper() }}|{{ 'ABC'.lower() }}|{{ 'aBc'.swapcase() }}|{{ 'hello wORLD'.capitalize() }}|{{ "it's x1y a-b".title() }}|{{ 'ẞß'.casefold() }}
{{ ' a b '.strip() }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ 'xyaxy'.strip('yx') }}|{{ 'xa'.lstrip('x') }}|{{ 'ax'.rstrip('x') }}|{{ '\u00a0a\u2003'.strip() }}|{{ 'a'.strip(none) }}|
{{ 'a b  c'.split() }}|{{ 'a,b,,c'.split(',') }}|{{ 'a,b,c'.split(',', 1) }}|{{ ''.split() }}|{{ ''.split(',') }}|{{ '  a  '.split(' ') }}|{{ 'a b c'.split(none, 1) }}|{{ 'a b c'.split(maxsplit=1) }}|{{ ' a  b  c '.split(none, 1) }}
{{ 'a,b,c'.rsplit(',', 1) }}|{{ 'a b  c '.rsplit(none, 1) }}|{{ 'a,b'.rsplit(',') }}|{{ ' a b c'.rsplit(maxsplit=1) }}
{{ 'a'.split('') }}
{{ 'a\nb\r\nc\rd\n'.splitlines() }}|{{ 'a\nb'.splitlines(true) }}|{{ ''.splitlines() }}|{{ '\n'.splitlines() }}
{{ 'a-b-c'.partition('-') }}|{{ 'a-b-c'.rpartition('-') }}|{{ 'abc'.partition('-') }}|{{ 'abc'.rpartition('-') }}
{{ 'aXbX'.replace('X', '-') }}|{{ 'aXbX'.replace('X', '-', 1) }}|{{ 'ab'.replace('', '.') }}|{{ 'aXbX'.replace('X', '-', -1) }}|{{ 'ab'.replace('', '.', 2) }}
{{ 'a'.replace('a', none) }}
{{ ','.join(['a', 'b']) }}|{{ ''.join([]) }}|{{ '-'.join('abc') }}|{{ ','.join({'x': 1, 'y': 2}) }}
{{ ','.join([1, 2]) }}
{{ 'abc'.startswith('ab') }}|{{ 'abc'.endswith(('x', 'c')) }}|{{ 'abc'.startswith('b', 1) }}|{{ 'abc'.endswith('b', 0, 2) }}|{{ 'abc'.startswith('') }}|{{ 'abc'.startswith('', 4) }}|{{ 'abc'.startswith(()) }}
{{ 'abc'.startswith(['a']) }}
{{ 'abc'.startswith(none) }}
{{ 'abcabc'.find('c') }}|{{ 'abc'.find('x') }}|{{ 'abcabc'.find('c', 3) }}|{{ 'abcabc'.rfind('a') }}|{{ 'abc'.find('') }}|{{ 'éa'.find('a') }}|{{ 'abcabc'.index('b', 2) }}|{{ 'abcabc'.rindex('b') }}|{{ 'abcabc'.find('b', -2) }}|{{ 'abc'.find('c', 0, 2) }}
{{ 'abc'.index('x') }}
{{ 'abc'.rindex('x') }}
{{ 'banana'.count('an') }}|{{ 'aaa'.count('aa') }}|{{ 'abc'.count('') }}|{{ 'banana'.count('a', 2) }}|{{ 'banana'.count('a', 2, 4) }}
{{ 'abc'.removeprefix('ab') }}|{{ 'abc'.removesuffix('bc') }}|{{ 'abc'.removeprefix('x') }}|{{ 'abc'.removesuffix('') }}
{{ 'a'.center(4) }}|{{ 'ab'.center(5, '*') }}|{{ 'a'.center(4, '*') }}|{{ 'a'.ljust(3, '.') }}|{{ 'a'.rjust(3, '.') }}|{{ 'abc'.ljust(2) }}|{{ '7'.zfill(3) }}|{{ '-7'.zfill(4) }}|{{ '+7'.zfill(2) }}|{{ ''.zfill(2) }}
{{ 'a'.center(4, 'xy') }}
{{ 'a\tb\t'.expandtabs() }}|{{ 'a\tb'.expandtabs(4) }}|{{ 'a\tb'.expandtabs(0) }}
{{ '12'.isdigit() }}{{ ''.isdigit() }}{{ '²'.isdigit() }}{{ '½'.isdigit() }}{{ '٣'.isdigit() }}{{ '12'.isdecimal() }}{{ '²'.isdecimal() }}{{ '½'.isnumeric() }}{{ '12a'.isalnum() }}{{ 'ab'.isalpha() }}{{ 'é漢'.isalpha() }}{{ 'a b'.isalpha() }}{{ ' \n'.isspace() }}{{ ''.isspace() }}
{{ 'ABC'.isupper() }}{{ 'AB1'.isupper() }}{{ '1'.isupper() }}{{ 'ab'.islower() }}{{ 'aB'.islower() }}{{ 'Ab Cd'.istitle() }}{{ 'ab'.istitle() }}{{ 'a1'.isidentifier() }}{{ '1a'.isidentifier() }}{{ 'é'.isascii() }}{{ 'a'.isascii() }}{{ 'a\n'.isprintable() }}{{ ''.isprintable() }}
{{ 'a'.nope() }}
{{ 'a'.nope }}|{{ 'a'.upper is defined }}|{{ 'a'.upper is callable }}
{{ messages[0].get('role') }}|{{ messages[0].get('x') }}|{{ messages[0].get('x', 'd') }}|{{ messages[0].get('role', 'd') }}|{{ messages[0]['role'] }}|{{ messages[0].x is defined }}
{{ {'a': 1, 'b': 2}.items() }}|{{ {'a': 1}.keys() }}|{{ {'a': 1}.values() }}|{{ {'a': 1, 'b': 2}.items()|list }}|{{ {'a': 1}.copy() }}|{{ {}.items() }}
{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}{{ v }}{% endfor %}|{{ {'b': 1, 'a': 2}.keys()|list }}|{{ {'b': 1, 'a': 2}.values()|list }}|{{ {'a': 1}.items()|length }}|{{ 'a' in {'a': 1}.keys() }}
{{ {'items': 5}['items'] }}|{{ {'items': 5}.items is callable }}|{{ {'x': 5}.x }}|{{ {'get': 1}.get('get') }}
{{ {}.pop('a') }}
{{ {'a': 1}.update({'b': 2}) }}
{{ [1].append(2) }}
{{ [1, 2].pop() }}
{{ [1, 2, 1].count(1) }}|{{ [1, 2, 1].index(2) }}|{{ (1, 2).count(2) }}|{{ (1, 2).index(2) }}|{{ [1].copy() }}
{{ [1].index(5) }}
{{ (5).bit_length is defined }}|{{ 1.0.is_integer() }}|{{ 1.5.is_integer() }}
{{ 'a{}b{}'.format(1, 'x') }}|{{ '{1}{0}'.format('a', 'b') }}|{{ '{x}'.format(x=5) }}|{{ '{{}}'.format() }}|{{ '{0[a]}'.format({'a': 1}) }}|{{ '{0[1]}'.format([1, 2]) }}
{{ '{:5}|{:<5}|{:>5}|{:^5}|{:*^5}'.format('ab', 'ab', 'ab', 'ab', 'ab') }}
{{ '{:5}|{:<5}|{:05}|{:+}|{: }|{:,}|{:_}|{:x}|{:#x}|{:X}|{:b}|{:#b}|{:o}|{:c}|{:n}'.format(42, 42, 42, 42, 42, 1234567, 1234567, 255, 255, 255, 5, 5, 8, 65, 5) }}
{{ '{:.2f}|{:8.3f}|{:e}|{:.1e}|{:g}|{:g}|{:g}|{:%}|{:.1%}|{:.3}|{:}|{:10}|{:<10}|'.format(3.14159, 2.5, 12345.678, 0.00012, 1e10, 0.0001, 123456789.0, 0.25, 0.256, 3.14159, 1.5, 1.5, 1.5) }}
{{ '{!r}|{!s}|{!r:>5}'.format('a', 'b', 'c') }}|{{ '{:{}}|{:>{w}}'.format('a', 4, 'b', w=3) }}
{{ '{:08.2f}|{:+.1f}|{:,.2f}|{:012,}|{:.0f}|{:.0f}|{:#.0f}'.format(-3.14159, 2.0, 12345.678, 1234567, 0.5, 1.5, 2.0) }}
{{ '{:G}|{:E}|{:.3g}|{:#g}|{:g}|{:.10g}|{}|{}'.format(1e-10, 1.5, 1234.5, 1.0, 100000.0, 0.1, 1e16, 1e-5) }}
{{ '{:.3}|{:10.2}|{:s}'.format('abcdef', 'abcdef', 'x') }}|{{ '{}'.format(none) }}|{{ '{}'.format([1, 'a']) }}|{{ '{:5}|{}'.format(true, true) }}|{{ '{:d}'.format(true) }}
{{ '{}'.format() }}
{{ '{:d}'.format('a') }}
{{ '{:d}'.format(1.5) }}
{{ '{:s}'.format(1) }}
{{ '{:5}'.format(none) }}
{{ '{:5}'.format([1]) }}
{{ '{'.format(1) }}
{{ '}'.format(1) }}
{{ '{x}'.format(1) }}
{{ '{0}{}'.format(1, 2) }}
{{ '%s|%r|%d|%i|%5d|%-5d|%05d|%+d|% d' % ('a', 'b', 3, 4, 5, 6, 7, 8, 9) }}
{{ '%.2f|%8.3f|%-8.1f|%08.2f|%e|%g|%G|%.0f|%#x|%X|%o|%c|%c|%%' % (3.14159, 2.5, 1.25, -1.5, 12345.6, 0.0001, 1e-10, 2.5, 255, 255, 8, 65, 'z') }}
{{ '%s' % 'a' }}|{{ '%s' % none }}|{{ '%s' % 1.0 }}|{{ '%s' % [[1, 2]] }}|{{ '%d' % 3.9 }}|{{ '%d' % true }}|{{ '%(a)s %(b)d' % {'a': 1, 'b': 2} }}|{{ '%5s|%-5s|%.1s' % ('ab', 'ab', 'ab') }}|{{ '%*d' % (5, 3) }}|{{ '%.3d' % 5 }}
{{ 'x' % () }}|{{ 'x' % {'a': 1} }}|{{ '%%' % () }}
{{ '%s %s' % 'a' }}
{{ '%s' % ('a', 'b') }}
{{ 'x' % 'a' }}
{{ '%d' % 'a' }}
{{ '%q' % 1 }}
{{ '% %' % 1 }}
{{ '%5%' % () }}
{% macro m() %}{% endmacro %}{{ m }}
{{ '%' % 1 }}
{{ '%(a)s' % 5 }}
{{ '%(a)s' % {'b': 1} }}
{{ 7 // 2 }}|{{ -7 // 2 }}|{{ 7 // -2 }}|{{ 7.5 // 2 }}|{{ -7.5 // 2 }}|{{ 7 % 3 }}|{{ -7 % 3 }}|{{ 7 % -3 }}|{{ 7.5 % 2 }}|{{ -7.5 % 2 }}|{{ 7 / 2 }}|{{ 6 / 2 }}|{{ 0.1 + 0.2 }}|{{ 1 - 1.0 }}
{{ 2 ** 10 }}|{{ 2 ** -1 }}|{{ 2 ** 0.5 }}|{{ 4 ** 0.5 }}|{{ 0 ** 0 }}|{{ (-2) ** 3 }}|{{ -2 ** 2 }}|{{ 2 ** 3 ** 2 }}|{{ 10 ** 20 }}|{{ 1.5 ** 2 }}
{{ 1 / 0 }}
{{ 1 // 0 }}
{{ 1 % 0 }}
{{ 1.0 / 0 }}
{{ 0 ** -1 }}
{{ true + 1 }}|{{ true + true }}|{{ true * 3 }}|{{ -true }}|{{ +5 }}|{{ - -5 }}|{{ +true }}
{{ 'a' + 'b' }}|{{ 'a' * 3 }}|{{ 3 * 'ab' }}|{{ 'a' * 0 }}|{{ 'a' * -1 }}|{{ [1] + [2] }}|{{ [1, 2] * 2 }}|{{ (1,) + (2,) }}|{{ (1,) * 3 }}|{{ [0] * true }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ [1] + (2,) }}
{{ none + 1 }}
{{ {} + {} }}
{{ 'a' - 'b' }}
{{ 'a' * 1.5 }}
{{ 'a' * 'b' }}
{{ -'a' }}
{{ +'a' }}
{{ undef + 1 }}
{{ 1 + undef }}
{{ undef * 2 }}
{{ -undef }}
{{ undef.x }}
{{ undef.x() }}
{{ undef() }}
{{ undef['x'] }}
{{ undef[0] }}
{{ undef[1:] }}
{{ undef < 1 }}
{{ undef == undef }}|{{ undef == none }}|{{ undef != 1 }}|{{ undef == '' }}|{{ 'a' in undef }}|{{ undef in [1] }}|{{ not undef }}|{{ undef ~ 'a' }}|{{ [undef] }}|{{ undef is none }}
{{ undef in 'abc' }}
{{ undef // 2 }}
{{ 'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'b'] ~ {'a': 1} ~ undef }}
{{ 1 ~ 2 + 3 }}|{{ 1 + 2 ~ 3 }}|{{ 2 * 3 ~ 4 }}|{{ 'a' ~ 'b' * 2 }}
{{ 1 < 2 < 3 }}|{{ 1 < 3 < 2 }}|{{ 1 == 1.0 }}|{{ 1 == true }}|{{ '1' == 1 }}|{{ none == none }}|{{ [1] == [1.0] }}|{{ (1,) == [1] }}|{{ {'a': 1} == {'a': 1} }}|{{ 'a' < 'b' }}|{{ 'Z' < 'a' }}|{{ [1, 2] < [1, 3] }}|{{ (1, 2) < (1,) }}|{{ 1 != 2 }}|{{ 2 >= 2 }}|{{ 1 < 1.5 }}|{{ 3 > 2 > 1 == 1 }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ [1] < 1 }}
{{ {} < {} }}
{{ 'a' in 'abc' }}|{{ 'a' not in 'abc' }}|{{ 1 in [1, 2] }}|{{ 1 in (1,) }}|{{ 'a' in {'a': 1} }}|{{ '' in 'a' }}|{{ none in [none] }}|{{ 3 in range(5) }}|{{ 1.0 in [1] }}|{{ [1] in [[1]] }}
{{ 1 in 'abc' }}
{{ 'a' in none }}
{{ 'a' in 5 }}
{{ [1] in {} }}
{{ 1 and 2 }}|{{ 0 and 2 }}|{{ 0 or 2 }}|{{ 1 or 2 }}|{{ '' or 'd' }}|{{ none or false }}|{{ not 1 }}|{{ not not 1 }}|{{ not none and 1 }}|{{ 1 and 2 or 3 }}|{{ undef or 'x' }}|{{ undef and 1 }}|{{ [] or {} or 0.0 or 'e' }}
{{ 'a' if true }}|{{ 'a' if false }}|{{ 'a' if false else 'b' if false else 'c' }}|{{ ('a' if true else 'b') ~ 'c' }}|{{ 1 if 'x' in 'xyz' else 2 }}
{{ ('x' if false).y }}
{{ 1|string|length }}|{{ -1|abs }}|{{ -5|string }}|{{ 2 * 3|string|length }}|{{ 'a' ~ 'b'|upper }}|{{ ('a' ~ 'b')|upper }}|{{ not 'a' is string }}|{{ 1 + 1 is odd }}|{{ 5 is odd and 4 is even }}
{{ 5 is divisibleby 5 }}|{{ 5 is divisibleby(2) }}|{{ 'a' is eq 'a' }}|{{ 3 is gt 2 }}|{{ 3 is lt(2) }}|{{ 3 is ge 3 }}|{{ 3 is le 2 }}|{{ 3 is ne 3 }}|{{ 1 is in [1, 2] }}|{{ 1 is not in [1, 2] }}|{{ 'a' is sameas 'a' }}|{{ none is sameas none }}|{{ 1 is sameas true }}|{{ 1.0 is sameas 1 }}
{{ true is boolean }}|{{ 1 is boolean }}|{{ true is number }}|{{ true is integer }}|{{ 1.0 is float }}|{{ 1 is float }}|{{ 'a' is number }}|{{ none is none }}|{{ 0 is none }}|{{ false is false }}|{{ 0 is false }}|{{ 1 is true }}|{{ undef is undefined }}|{{ undef is defined }}|{{ none is defined }}
{{ 'a' is string }}|{{ ['a'] is string }}|{{ {} is mapping }}|{{ [] is mapping }}|{{ {} is iterable }}|{{ 5 is iterable }}|{{ none is iterable }}|{{ undef is iterable }}|{{ undef is sequence }}|{{ {} is sequence }}|{{ 'a' is sequence }}|{{ (1,) is sequence }}|{{ 5 is sequence }}|{{ range(2) is sequence }}|{{ undef is mapping }}|{{ undef is string }}|{{ {}.items() is sequence }}|{{ [1]|map('string') is sequence }}|{{ [1]|map('string') is iterable }}
{{ 'abc' is lower }}|{{ 'Abc' is lower }}|{{ 'ABC' is upper }}|{{ '1' is upper }}|{{ 'upper' is filter }}|{{ 'nope' is filter }}|{{ 'odd' is test }}|{{ range is callable }}|{{ 'a' is callable }}|{{ messages[0] is callable }}|{{ 'a' is escaped }}|{{ 1 is equalto 1 }}|{{ 2 is greaterthan 1 }}|{{ 1 is lessthan 2 }}
{{ 'a' is odd }}
{{ 1 is divisibleby 0 }}
{{ 1 is divisibleby }}
{{ undef is odd }}
{{ 'abcdef'[1:3] }}|{{ 'abcdef'[:-1] }}|{{ 'abcdef'[::2] }}|{{ 'abcdef'[::-1] }}|{{ 'abcdef'[4:1:-1] }}|{{ 'abcdef'[-2:] }}|{{ 'abcdef'[10:] }}|{{ 'abcdef'[3:1] }}|{{ 'héllo'[1:3] }}|{{ 'abc'[5] }}|{{ 'abc'[-1] }}|{{ 'abc'[0] }}|{{ 'abc'[-10:2] }}|{{ 'abc'[-4] }}
{{ [1, 2, 3, 4][1:3] }}|{{ [1, 2, 3][::-1] }}|{{ [1, 2, 3][-1] }}|{{ (1, 2, 3)[1:] }}|{{ [1, 2, 3][5:] }}|{{ [1, 2, 3, 4, 5][::2] }}|{{ [1, 2, 3, 4, 5][-1:0:-2] }}|{{ [1, 2][true] }}|{{ range(10)[2:8:3] }}|{{ range(10)[::-1]|list }}|{{ range(5)[-1] }}|{{ [1, 2, 3][0:10] }}|{{ [][1:] }}
{{ [1, 2][::0] }}
{{ messages[0][1:] }}
{{ messages[0].role['a':] }}
{{ tools[:1] }}
{{ range(3)[::2] }}|{{ range(9)[-3:1:-2] }}|{{ range(5, 0, -1)[1:3] }}
{{ 5|indent }}
{{ undef|indent }}
{{ [1]|truncate }}
{{ 5|truncate }}
{{ undef is callable }}
{{ 1 + not }}
{{ none.x }}|{{ 5.x }}|{{ none['a'] }}|{{ [1]['a'] }}|{{ [1][1.5] }}|{{ [1][none] }}|{{ {'a': 1}[[1]] }}|
{{ {'a': 1, 2: 'b', none: 'c', (1, 2): 'd', 1.5: 'e', true: 'f'} }}
{{ {'a': 1, 'a': 2} }}|{{ {1: 'a', true: 'b'} }}|{{ {2: 'x'}[2.0] }}|{{ {(1, 2): 'x'}[(1, 2)] }}|{{ {(1, 2): 'x'}[1, 2] }}|{{ {'b': 1, 'a': 2, 'c': {'z': 1, 'y': 2}} }}
{{ {[1]: 2} }}
{{ [] }}|{{ [1] }}|{{ () }}|{{ (1,) }}|{{ 1, 2 }}|{{ {} }}|{{ [[]] }}|{{ [1, 'a', "b'c", 'd"e', none, true, 1.0, (1,), {'k': 'v'}] }}
{{ ['a\nb', 'a\\b', 'é', '\x00', '\x7f', '\u2028', '\u00a0', '😀', '\ufeff', "'\"", '\t\r', '\u0301', '\ue000', '\U000e0001'] }}
{{ 1.0 }}|{{ 1e15 }}|{{ 1e16 }}|{{ 123456789012345678.0 }}|{{ 1e-4 }}|{{ 1e-5 }}|{{ 0.00001234 }}|{{ 1e300 * 1e10 }}|{{ -1e300 * 1e10 }}|{{ 1.5e3 }}|{{ 100.0 }}|{{ 1/3 }}|{{ 2/3*3 }}|{{ 5e-324 }}|{{ -0.0 }}|{{ 1e22 }}|{{ 1E5 }}|{{ 1_0.5_0 }}
{{ 0x1F }}|{{ 0o17 }}|{{ 0b101 }}|{{ 1_000_000 }}|{{ 00 }}|{{ 0 }}|{{ 0XfF }}|{{ 12345678901234567890 }}|{{ 99999999999 * 99999999999 }}|{{ 0x_ff }}
{{ 007 }}
{{ 1__0 }}
{{ 1.e5 }}
{{ "a\tb\\n\x41\u00e9\101\q\'" }}|{{ 'a' "b" 'c' }}|{{ '\U0001F600'|length }}|{{ '\0'|length }}
{{ 'a\xg' }}
{{ 'abc }}
{{ range(3) }}|{{ range(1, 7, 2)|list }}|{{ range(3, 0, -1)|list }}|{{ range(0)|list }}|{{ range(5)|length }}|{{ range(5)|sum }}|{{ range(1, 7, 2) }}|{{ range(2) == range(0, 2) }}|{{ range(5)[1] }}|{{ range(-2, 2)|join(',') }}
{{ range(100001)|length }}
{{ range('a') }}
{{ range(1, 2, 0) }}
{{ dict(a=1, b='x') }}|{{ dict({'a': 1}, b=2) }}|{{ dict([('a', 1), ['b', 2]]) }}|{{ dict() }}|{{ dict(zz=1, aa=2, mm=3) }}
{{ dict([1]) }}
{{ dict({}, {}) }}
{{ range(3, x=1) }}
{{ raise_exception('a', 'b') }}
{% set ns = namespace(a=1) %}{{ ns.a }}|{{ ns.b is defined }}|{% set ns.a = 'x' %}{{ ns.a }}|{{ ns }}|{{ ns['a'] }}
{% set ns = namespace() %}{% for i in range(3) %}{% set ns.x = i %}{% endfor %}{{ ns.x }}
{% set d = {} %}{% set d.x = 1 %}
{% set x.y = 1 %}
{% set ns = namespace(l=[]) %}{% for i in [1, 2] %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.l }}
{% set j = joiner() %}{{ j() }}a{{ j() }}b{{ j() }}c|{% set k = joiner('; ') %}{{ k() }}{{ k() }}
{% set c = cycler('a', 'b', 'c') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{% set _ = c.reset() %}{{ c.next() }}
{{ cycler() }}
{{ raise_exception('no') }}
{{ raise_exception() }}
{{ strftime_now('%Y', 1) }}
{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }}{{ loop.cycle('a', 'b') }};{% endfor %}
{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.previtem|default('-') }}{{ loop.nextitem|default('+') }};{% endfor %}
{% for x in [1, 2, 3, 4] if x is even %}{{ loop.index }}{{ x }}{{ loop.last }};{% endfor %}|{% for x in [] %}{% else %}none{% endfor %}|{% for x in [1] if x > 5 %}x{% else %}none{% endfor %}
{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{{ loop.depth }}{% endif %}{% endfor %}
{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }};{% endfor %}|{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}|{% for a, b in {'x': 1}.items() %}{{ a }}{{ b }}{% endfor %}|{% for k in {'x': 1} %}{{ k }}{% endfor %}|{% for c in 'ab' %}{{ c }}.{% endfor %}
{% for c in 'aé' ~ 'b' %}{{ c }}{{ loop.last }}{{ loop.length }}{% endfor %}|{{ [none, none]|sort }}|{{ [{}, {}]|sort }}
{{ [undef, undef]|sort }}
{{ 1 < 1 < undef }}
{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}
{% for a, b in [1] %}{{ a }}{% endfor %}
{% for x in 5 %}{% endfor %}
{% for x in none %}{% endfor %}
{% for x in undef %}x{% else %}e{% endfor %}
{% for x in undef.y %}x{% endfor %}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% elif i == 5 %}{% break %}{% else %}{{ i }}{% endif %}{% endfor %}
{% break %}
{% for x in [1, 2] %}{% for y in [1, 2, 3] %}{% if y == 2 %}{% break %}{% endif %}{{ x }}{{ y }};{% endfor %}{% endfor %}
{% for x in [1, 2] %}{% set y = x %}{% endfor %}{{ y is defined }}|{% set z = 1 %}{% for x in [1, 2] %}{% set z = x %}{% endfor %}{{ z }}|{% if true %}{% set w = 5 %}{% endif %}{{ w }}
{% for x in [1] %}{{ loop.nope is defined }}{% endfor %}|{{ loop is defined }}
{% set x, y = 1, 2 %}{{ x }}{{ y }}|{% set x = 1, 2 %}{{ x }}|{% set (a, b) = [3, 4] %}{{ a }}{{ b }}|{% set t = (1, 2) if true else 3 %}{{ t }}
{% set x, y = [1] %}
{% set x %}a{{ 1 + 1 }}b{% endset %}{{ x }}|{% set x | upper %}abc{% endset %}{{ x }}|{% set x | replace('a', 'b') | upper %}aa{% endset %}{{ x }}|{{ x is string }}
{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}|{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}
{% macro m(a, b='d', c=none) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, 2) }}|{{ m(1, c=3) }}|{{ m(b=1, a=2) }}|{{ m() }}|{{ m(1)|length }}|{{ m.name }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(x=2) }}
{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{{ 1 }}{% endcall %}|{% macro n() %}{{ caller(5) }}{% endmacro %}{% call(v) n() %}{{ v + 1 }}{% endcall %}
{% macro fact(n) %}{% if n > 1 %}{{ n }}*{{ fact(n - 1) }}{% else %}1{% endif %}{% endmacro %}{{ fact(4) }}
{% set g = 1 %}{% macro m() %}{{ g }}{% endmacro %}{% set g = 2 %}{{ m() }}
{% macro m(a, a2=a) %}{{ a2 }}{% endmacro %}{{ m(3) }}|{% macro e() %}  x  {% endmacro %}[{{ e() }}]|{{ e() | trim }}|{{ m is callable }}
{% macro m(a, b=a ~ 'x', c=b|upper, d=1) %}{{ a }}{{ b }}{{ c }}{{ d }}{% endmacro %}{{ m('p') }}|{{ m('p', d=2) }}|{{ m('p', 'q') }}
{% macro m(a='d') %}{{ a }}{% endmacro %}{{ m(undef) }}|{{ m(none) }}
{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, x=2) }}
{% for x in [1, 2] %}{% break %}{% else %}e{% endfor %}|{% for x in [1, 2] %}{% if x == 2 %}{% break %}{% endif %}{% else %}e{% endfor %}
{% for x in [1, 2] %}{% with y = x %}{% if y == 2 %}{% break %}{% endif %}{{ y }}{% endwith %}{% endfor %}
{% set ns = namespace(inner=namespace(a=1)) %}{{ ns.inner.a }}
{% macro m() %}x{% endmacro %}{% set d = {'m': m} %}{{ d.m() }}
{{ '\ud83d\ude00'|length }}|{{ '\ud83d'|length }}
{{ 2 ** 200 }}
{% for x in range(2) %}{% set x = 5 %}{{ x }}{% endfor %}|{% set x = 1 %}{% for x in [7] %}{{ x }}{% endfor %}{{ x }}|{% for i in range(3) %}{% if not loop.last %}{{ i }}, {% endif %}{% endfor %}
{% if messages[0].role == 'system' %}{% set sys = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{{ sys }}{{ rest|length }}
{% set a = 1 %}{% block x %}{{ a }}{% endblock %}|{% for i in [1, 2] %}{% block y scoped %}{{ i }}{% endblock %}{% endfor %}
{% macro outer() %}{% macro inner() %}i{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }}
{% set m = messages|first %}{% for k, v in m.items() %}{{ k }}={{ v|trim }};{% endfor %}|{% for k in m %}{{ k }}{% endfor %}|{% for k, v in m|dictsort %}{{ k }}{% endfor %}|{% for k, v in m|items %}{{ k }}{% endfor %}
{% filter upper %}a{{ 'b' }}{% endfilter %}|{% filter replace('a', 'b')|upper %}aa{% endfilter %}
{% block b %}x{{ 1 }}{% endblock %}|{{ self.b() }}|{% block c %}{% endblock c %}
{% raw %}{{ x }}{% if %}{% endraw %}|{%- raw -%}  a  {%- endraw -%}  |{# comment {{ #}x{#- y -#}  z
{% generation %}a{{ 1 }}{% endgeneration %}|{% for x in [1, 2] %}{% generation %}{{ x }}{{ loop.index }}{% set v = 3 %}{% endgeneration %}{{ v is defined }}{% endfor %}
{% if 0 %}a{% elif '' %}b{% elif [0] %}c{% else %}d{% endif %}|{% if none %}{% else %}e{% endif %}|{% if {} or () or 0.0 %}x{% endif %}
{% if a %}
{% endif %}
{% if true %}{% else %}{% elif x %}{% endif %}
{% nope %}
{% do 1 %}
{{ 1 +}}
{{ }}
{{ a b }}
{{ 'a'|}}
{{ [1, 2 }}
{{ (1, }}
{% for in x %}{% endfor %}
{% set 1 = 2 %}
{% endif %}
{# unclosed
{{ a.1.b is defined }}
{{ messages[0].content }}|{{ messages.0.role }}|{{ messages[-1]['role'] }}|{{ (messages|last).role }}|{{ messages[0]['role', ] is defined }}
{{ messages|map(attribute='role')|list|unique|join }}|{{ messages[1:]|length }}|{{ messages[::2]|map(attribute='role')|join(',') }}|{{ messages[0] == {'role': 'system', 'content': 'Be brief.\n'} }}
{{ messages[0] }}|{{ messages }}
{{ bos_token ~ eos_token }}|{{ add_generation_prompt }}|{{ tools is none }}|{{ documents }}|{{ tools|length if tools else 0 }}
{{ tools|length }}
{% for t in tools %}{% endfor %}
{{ tools|tojson }}|{{ tools is iterable and tools|length > 0 }}|{{ tools is defined and tools }}|{{ not tools }}
{{ messages[0].content.split('b')[0].strip().upper()[:2] + '!' }}|{{ (messages[1].content|trim).split(' ')|first }}
{{ 'a' ~ ('b' if messages[0].role == 'system' and not messages[5] is defined else 'c') }}
{{ {'a': [1, {'b': 2}]}.a[1].b }}|{{ {'a': {'b': 1}}['a']['b'] }}|{{ {'a': {'b': 1}}.a.b + 1 }}|{{ [[1, 2], [3]][0][1] }}|{{ {'f': 1}.f|string ~ 'x' }}
{{- ' a ' -}} b {{- ' c ' }} d  {%- if true %}  e  {%- endif %}  f
{{ '%s' | format(messages[0].role) }}|{{ "%s, %s" % (messages[0].role, messages[1].role) }}
{{ é is defined }}|{% set naïve = 1 %}{{ naïve }}|{{ {'é': 1}.é }}
{{ 'a'|upper()|lower() }}|{{ 'a' | upper | lower }}|{{ [1,2,]|length }}|{{ {'a':1,}|length }}|{{ range(3,)|list }}
{{ 'x'.join(['a', 'b'])|upper ~ '-' ~ 'Y'.lower() }}|{{ ('a', 'b')|join('+') }}|{{ ['b', 'a']|sort|join }}
{{ '一'.isnumeric() }}
{{ 'İ'.lower()|length }}|{{ 'ΑΣ'.lower() }}|{{ 'ŉ'.upper() }}|{{ 'ﬁx'.title() }}|{{ 'ﬁx'.capitalize() }}|{{ 'dž'.upper() }}
{{ '\x1c a\x1f'.strip() }}|{{ '\x85a\x85'.strip() }}|{{ 'a\x1cb'.split() }}|{{ '\u200ba'.strip()|length }}
{{ 1 if true else }}
{{ x = 1 }}
{{ *[1] }}
{{ range(*[1, 3])|list }}|{{ dict(**{'a': 1}) }}|{{ 'x{}y{}'.format(*[1, 2]) }}
{{ not }}
{{ 'a' not }}
{{ 1 is not none }}|{{ 1 is not odd }}|{{ not 1 is odd }}|{{ 1 is odd is odd }}
{{ (1 is odd) is true }}|{{ 'a' is not string and true }}|{{ 1 in [1] is true }}
{{ [1, 2, 3]|length > 2 }}|{{ 'abc'|length == 3 and 'x' }}|{{ [1]|first == 1 }}
{{ 5 // 2 * 2 + 5 % 2 }}|{{ 2 + 3 * 4 ** 2 / 8 - 1 }}|{{ (2 + 3) * 4 }}|{{ 10 - 2 - 3 }}|{{ 100 / 10 / 2 }}|{{ 2 - -2 }}|{{ 7 - 2 ~ 'a' }}
{% include 'x' %}
{% extends 'x' %}
{% import 'x' as y %}
{{ "a\r\nb"|length }}|{{ 'x' }}
{{ 'Hello there -- you goof-ball, use the -b option!'|wordwrap(10) }}|{{ 'a b c'|wordwrap(1) }}|{{ ''|wordwrap }}
{{ 'The quick brown fox-hound jumps over a lazy-lazy dog.'|wordwrap(12) }}|{{ 'a-b-c-d-e-f-g'|wordwrap(4) }}|{{ 'one-two three-four--five---six'|wordwrap(9) }}
{{ 'supercalifragilisticexpialidocious word'|wordwrap(10) }}|{{ 'supercalifragilisticexpialidocious word'|wordwrap(10, false) }}|{{ 'supercali-fragilistic-expialidocious'|wordwrap(12, true, '/', false) }}
{{ 'a  b   c    d\n\n  e f\ng'|wordwrap(3) }}|{{ 'x y'|wordwrap(3, wrapstring='<br>') }}|{{ 'ab cd ef'|wordwrap(2, break_on_hyphens=false) }}
{{ 'naïve façade — 漢字漢字漢字'|wordwrap(5) }}|{{ '\u00a0\u00a0 a b'|wordwrap(2) }}|{{ 'a\tb\tc'|wordwrap(2) }}|{{ '------ a'|wordwrap(3) }}|{{ 'x------y-z a'|wordwrap(4) }}
{{ "don't--stop, e-mail 12-34 A-B-C x_-y x1-y2 me--you"|wordwrap(1, false) }}
{{ 'abc'|wordwrap(0) }}
{{ 'abc'|wordwrap(-5) }}
{{ 5|wordwrap }}
{{ none|wordwrap }}
{{ undef|wordwrap }}
{{ [1, 'a', none, {'b': 2.5, 'a': [true]}]|pprint }}|{{ 'it\'s'|pprint }}|{{ undef|pprint }}|{{ 5|pprint }}|{{ []|pprint }}|{{ {}|pprint }}|{{ (1,)|pprint }}
{{ range(60)|list|pprint }}
{{ {'zebra': 'x' * 60, 'apple': ['y' * 40, 'z' * 40], 'mid': {'k': 1}}|pprint }}
{{ ('word ' * 40)|pprint }}
{{ ['word ' * 40, 'b']|pprint }}
{{ {'key': 'word ' * 40, 'other': {'inner': 'longer words ' * 20}}|pprint }}
{{ ('line one\nline two that is longer\n' * 4)|pprint }}
{{ ('x' * 100)|pprint }}
{{ ['x' * 100, ('y' * 50, 'z' * 50)]|pprint }}
{{ (('a' * 90),)|pprint }}
{{ {3: 'c', 1: 'a', 2: 'b'}|pprint }}|{{ {'b': 1, 1: 2, none: 3, 'a': 4}|pprint }}|{{ {(2, 1): 'x', (1, 2): 'y'}|pprint }}|{{ {true: 1, 0: 2}|pprint }}
{{ messages|pprint }}
{{ [range(3), {'a': 1}.keys(), namespace(a=1)|string]|pprint }}
{{ [['deep ' * 10, ['deeper ' * 10, ['deepest ' * 10]]]]|pprint }}
{{ ['a b'] * 30|int }}
{{ (['quote\'s and "double" ' * 6])|pprint }}
{{ {'a' * 70: 'b' * 70}|pprint }}
{{ {'a' * 70: ['b' * 30, 'c c ' * 20]}|pprint }}
{{ [7]|random }}|{{ 'x'|random }}|{{ (none,)|random }}|{{ []|random }}|{{ ''|random is defined }}|{{ undef|random is defined }}
{{ {'a': 1}|random }}
{{ 5|random }}
{{ none|random }}
{{ 'a b/c?d=e&f#é漢~_.-'|urlencode }}|{{ 5|urlencode }}|{{ none|urlencode }}|{{ undef|urlencode }}|{{ ''|urlencode }}|{{ true|urlencode }}
{{ {'a b': 'c/d', 'x': 1, 'y': none}|urlencode }}|{{ [('a', 1), ['b', 'é +']]|urlencode }}|{{ ['ab', 'cd']|urlencode }}|{{ []|urlencode }}
{{ [1]|urlencode }}
{{ ['abc']|urlencode }}
{{ {'class': 'my <list>', 'missing': none, 'id': 'list-%d'|format(5), 'u': undef, 'n': 3}|xmlattr }}|{{ {'a': 1}|xmlattr(false) }}|{{ {}|xmlattr }}|{{ {'x': none}|xmlattr }}|{{ {'a': 1, 'b&': '"'}|xmlattr(autospace=false) }}
{{ {'a b': 1}|xmlattr }}
{{ {'a>': 1}|xmlattr }}
{{ {'a\x1fb': 1}|xmlattr }}|{{ {'a\u00a0b': 1}|xmlattr }}
{{ {1: 1}|xmlattr }}
{{ [1]|xmlattr }}
{{ undef|xmlattr }}
{{ '<p>Hello <b>big</b>\n\n world</p>'|striptags }}|{{ 'a <!-- <b> --> c'|striptags }}|{{ '1 < 2'|striptags }}|{{ '<a'|striptags }}|{{ 'x<!-->y'|striptags }}|{{ 'x<!--->y'|striptags }}|{{ 'x<!-- y'|striptags }}|{{ '<<!-- a -->!-- b -->c'|striptags }}|{{ 5|striptags }}|{{ none|striptags }}|{{ undef|striptags }}|
{{ '&lt;b&gt; &amp;amp; &quot;x&quot; &apos; &nbsp;| &eacute;&Eacute;&copy;&REG;&frac12;&divide'|striptags }}|{{ '&#65;&#x42;&#X43;&#128;&#0;&#xD800;&#1;&#x110000;&#13;x&#;&#x;'|striptags }}|{{ '&ampx &ltd &nope; & &; &a'|striptags }}|{{ '&#99999999999999999999;'|striptags }}
{{ '&hellip;&notit;'|striptags }}
{{ 'See http://example.com/x, (https://a.b.org) www.x.de. foo.com me@x.com mailto:a@b.cd <x.net>'|urlize }}
{{ 'http://example.com/a/very/long/path'|urlize(10) }}|{{ 'www.example.com'|urlize(trim_url_limit=3, nofollow=true, target='_blank', rel='x "y"') }}|{{ 'http://a.com'|urlize(-5) }}|{{ 'http://a.com'|urlize(0) }}
{{ 'tel:123 ftp://x ssh:y'|urlize(extra_schemes=['tel:', 'ftp://']) }}|{{ 'tel:'|urlize(extra_schemes=['tel:']) }}
{{ 'x'|urlize(extra_schemes=['tel']) }}
{{ 'http://1.2.3.4/x http://[::1] http://[1:2:3:4:5:6:7:8] http://[1:2:3:4:5:6:7:8:9] http://1.2.3 http://localhost http://localhost:80 http://a:123456'|urlize }}
{{ 'HTTP://A.COM Http://b.org http://x.c http://xn--p1ai.xn--p1ai http://a..com http://-a.com a.b.com b.com .com a.museum é.com http://é.com'|urlize }}
{{ '((http://a.com/(x))) (http://a.com/x). &lt; "http://q.com" <http://r.com>, http://a.com/(x).'|urlize }}
{{ 'a@b.c @a@b.com a@b a@b..c x:y@z.com www.a@b.com a.b@c-d.e1 a@-b.com'|urlize }}|{{ 'http://a.com?x=1&y=2 http://a.com#f a.com:80/x a.com:'|urlize }}|{{ 5|urlize }}|{{ none|urlize }}|{{ undef|urlize }}|
{{ '  a\n\thttp://a.com  \n'|urlize }}
{{ 0|filesizeformat }}|{{ 1|filesizeformat }}|{{ 999|filesizeformat }}|{{ 1000|filesizeformat }}|{{ 1500000|filesizeformat }}|{{ 1e12|filesizeformat }}|{{ 1e30|filesizeformat }}|{{ 1023|filesizeformat(true) }}|{{ 1024|filesizeformat(binary=true) }}|{{ 123456789|filesizeformat(true) }}|{{ '1300'|filesizeformat }}|{{ -5.5|filesizeformat }}|{{ -0.5|filesizeformat }}|{{ 1.9|filesizeformat }}|{{ true|filesizeformat }}|{{ 'inf'|filesizeformat }}|{{ 'nan'|filesizeformat }}|{{ 1e24|filesizeformat(true) }}
{{ '-inf'|filesizeformat }}
{{ 'x'|filesizeformat }}
{{ none|filesizeformat }}
{{ undef|filesizeformat }}
{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}|{{ m() }}|{{ m(a=1) }}|{{ m(1, a=2) }}|{{ m(x=1, a=2) }}
{% macro m(a, b='d') %}{{ a }}{{ b }}{{ varargs|join(',') }}{% endmacro %}{{ m(1) }}|{{ m(1, 2, 3, 4) }}|{{ m(b=1) }}
{% macro m() %}{{ varargs }}{% endmacro %}{{ m(x=1) }}
{% macro m() %}{{ kwargs }}{% endmacro %}{{ m(x=1, y=[2]) }}
{% macro m() %}{{ kwargs }}{% endmacro %}{{ m(1) }}
{% macro m(varargs) %}{{ varargs }}{% endmacro %}{{ m(1) }}
{% macro m(kwargs) %}{{ kwargs }}{{ varargs }}{% endmacro %}{{ m(1, 2) }}
{% macro m(n) %}{{ n }}{% if varargs %},{{ m(*varargs) }}{% endif %}{% endmacro %}{{ m(1, 2, 3) }}
{% macro o() %}{% macro i(x) %}{{ x }}{{ varargs }}{% endmacro %}{{ i(1, 2) }}{{ varargs }}{% endmacro %}{{ o(3) }}
{% macro m() %}[{{ caller(varargs|length) }}{{ kwargs }}]{% endmacro %}{% call(n) m(1, 2, z=3) %}n={{ n }}{% endcall %}
{% macro m() %}{{ varargs }}{% endmacro %}{{ m }}|{{ m.name }}|{{ m.catch_varargs }}{{ m.catch_kwargs }}|{{ m is callable }}|{{ m(*[1, 2], **{}) }}
{% for x in [1, 2] %}{% macro m() %}{{ x }}{{ varargs }}{% endmacro %}{{ m(x) }}{% endfor %}
{% set f = joiner('|') %}{% macro m(sep) %}{% for v in varargs %}{{ f() }}{{ v }}{% endfor %}{% for k, v in kwargs.items() %}{{ k }}:{{ v }}{% endfor %}{% endmacro %}{{ m(0, 'a', 'b', c=1) }}
{{ varargs is defined }}|{{ kwargs is defined }}
"""


# Templates of several lines.
BLOCKS = [
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n",
    "a\n  {%+ if true %}\n  b\n  {%+ endif %}\nc\n",
    "a\n{% if true +%}\nb\n{% endif +%}\nc\n",
    "  {# c #}\nx {# d #}\n  {# e -#}\n  y\n{#- f #}\nz",
    "{% for x in [1, 2] %}\n  {{ x }}\n{% endfor %}\n\n\n",
    "{% for x in [1, 2] -%}\n  {{ x }}\n{%- endfor %}\n",
    "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc\r\n",
    "a\r{% if true %}\rb{% endif %}",
    "{% raw %}\n  {{ x }}\n  {% endraw %}\n y",
    "{%- raw %}\n a \n {%- endraw +%}\n y",
    "a{% raw %} {% endraw %}b{% raw %}{% endraw %}c",
    "{{ 'a\nb' }}|{{ 'a\r\nb'|length }}",
    "{{ \"\\\nx\" }}",
    "\n\n  {% set x = 1 %}\n  {% set y = 2 %}\n{{ x }}\n{{ y }}\n",
    "{{ x }}\n\t{%- if true %} a {% endif -%} \n\t b",
    "{% if true %}a{% endif %}\n\n{% if true %}\n\nb{% endif %}",
    "  {{ 1 }}  \n  {{- 2 }}  \n  {{ 3 -}}  \n  4",
    "{{'}}'}}{{ {'a': {'b': 1}}.a.b }}{{ '{%' }}{{ {'a':1}['a']}}",
    "{% set x = '%}' %}{{ x }}{# {{ '#}' }}",
    "{%\nif\ntrue\n%}a{%\nendif\n%}",
    "{%-if true-%} a {%-endif-%} b",
    "{{-1}}{{ -1 }}{{+1}}",
    "a {{ '{{' }} b { { } } {",
    "{% macro m(x) %}\n  [{{ x }}]\n{% endmacro %}\n{{ m(1) }}{{ m('a') }}",
    "{% set x %}\n  a\n{% endset %}\n[{{ x }}]",
    "{% generation %}\n  {{ 'a' }}\n{% endgeneration %}\nb",
    "{#\n multi\n line\n#}\nx",
    "x\n",
    "x\n\n",
    "\n",
    "\u00a0{% if true %}\u2003\n a {%- endif %}",
]


def result(template, made):
    try:
        return {"ok": made.from_string(template).render(
            messages=copy.deepcopy(MESSAGES), add_generation_prompt=True, bos_token="<s>", eos_token="</s>", tools=None, documents=None,
        )}
    except Exception as error:  # noqa: BLE001: the type is the result
        return {"error": type(error).__name__}


def main():
    made = environment()
    lines = [{"template": template, **result(template, made)} for template in BLOCKS]
    for line in LINES.strip("\n").split("\n"):
        whole = result(line, made)
        # An error would hide what stands beside it.
        parts = line.split("|{{ ") if "error" in whole else [line]
        templates = [parts[0], *("{{ " + part for part in parts[1:])]
        lines += [{"template": template, **result(template, made)} for template in templates]
    golden = {
        "made_with": {"jinja2": jinja2.__version__},
        "messages": MESSAGES,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "lines": lines,
    }
    path = Path(__file__).parent.parent / "chat-lines.json"
    path.write_text(json.dumps(golden, indent=1, ensure_ascii=True) + "\n")
    print(len(lines), sum("error" in line for line in lines))


if __name__ == "__main__":
    main()
