//! Tests of settings, helpers and limits. Parity with jinja2 is in `tests/jinja2.rs`.

use super::{Error, MAX_RENDERED_BYTES, MAX_TEMPLATE_BYTES, Message, Template, can_allocate};

const HELLO: [Message<'static>; 1] = [Message { role: "user", content: "Hello" }];

fn render(source: &str) -> Result<String, Error> {
    Template::new(source, "<s>", "</s>", can_allocate)?.render(&HELLO, true)
}

#[test]
fn messages_tokens_and_prompt_are_seen() {
    let source = "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m['content'] }}{{ eos_token }}\
                  {% endfor %}{% if add_generation_prompt %}>{% endif %}";
    assert_eq!(render(source).unwrap(), "<s>user:Hello</s>>");
    let template = Template::new(source, "<s>", "</s>", can_allocate).unwrap();
    assert_eq!(template.render(&HELLO, false).unwrap(), "<s>user:Hello</s>");
    assert_eq!(template.render(&[], true).unwrap(), "<s>>");
}

#[test]
fn blocks_are_trimmed_and_nothing_is_escaped() {
    assert_eq!(render("a\n  {% if true %}\n  b & <c>\n  {% endif %}\nd\n").unwrap(), "a\n  b & <c>\nd");
}

#[test]
fn python_methods_and_loop_controls_work() {
    assert_eq!(render("{{ ' x '.strip() ~ 'a,b'.split(',')[1] ~ 'Ab'.upper() }}").unwrap(), "xbAB");
    assert_eq!(
        render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}").unwrap(),
        "01"
    );
}

#[test]
fn tojson_is_pythons() {
    assert_eq!(
        render(r#"{{ {"a": [1, 2.5, none, true], "b": "<é'\"\n&>"} | tojson }}"#).unwrap(),
        r#"{"a": [1, 2.5, null, true], "b": "<é'\"\n&>"}"#
    );
    assert_eq!(render("{{ [1, {}] | tojson(indent=2) }}").unwrap(), "[\n  1,\n  {}\n]");
    assert_eq!(render("{{ [] | tojson }}{{ {} | tojson }}").unwrap(), "[]{}");
    assert!(render("{{ 1 | tojson(width=2) }}").is_err());
}

#[test]
fn dates_come_from_the_clock() {
    let year: u32 = render("{{ strftime_now('%Y') }}").unwrap().parse().unwrap();
    assert!(year >= 2024);
}

#[test]
fn a_template_that_rejects_says_so_in_its_own_words() {
    let error = render("\n{{ raise_exception('Roles must alternate!') }}").unwrap_err();
    assert!(matches!(error, Error::Rendering(_)));
    assert_eq!(error.to_string(), "chat template (line 2): Roles must alternate!");
}

#[test]
fn a_template_that_does_not_compile_is_a_bad_file() {
    for source in ["", "  \n", "{% for %}", "{{ 'a", "{% if x %}", "{{ }}"] {
        let error = Template::new(source, "", "", can_allocate).unwrap_err();
        assert!(matches!(error, Error::Source(_)), "{source:?}: {error}");
        assert!(!error.to_string().contains('\n'));
    }
    assert!(matches!(
        Template::new(&" x".repeat(MAX_TEMPLATE_BYTES), "", "", can_allocate),
        Err(Error::Source(_))
    ));
}

#[test]
fn unknown_names_are_errors() {
    for source in ["{{ 'a'.b() }}", "{{ f() }}", "{{ 1 | f }}", "{{ nothing.more }}", "{% include 'x' %}"] {
        let error = render(source).unwrap_err();
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn runaway_templates_are_stopped() {
    let loops = "{% for i in range(100000) %}".repeat(3) + "{% set x = i %}" + &"{% endfor %}".repeat(3);
    let error = render(&loops).unwrap_err();
    assert!(error.to_string().contains("too many steps"), "{error}");
    assert!(render("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}").is_err());
    assert!(render("{{ 'x' * 10000000000 }}").is_err());
    let error = render("{% set x = 'x' * 90000000 %}{{ x }}").unwrap_err();
    assert!(error.to_string().contains(&MAX_RENDERED_BYTES.to_string()), "{error}");
    // An expression nested beyond any sense must not use up the stack.
    let nested = "(".repeat(100_000) + "1" + &")".repeat(100_000);
    assert!(Template::new(&format!("{{{{ {nested} }}}}"), "", "", can_allocate).is_err());
    let blocks = "{% if true %}".repeat(50_000) + &"{% endif %}".repeat(50_000);
    assert!(Template::new(&blocks, "", "", can_allocate).is_err());
}

/// A template that can't have the memory or time that it wants, with what its error says.
fn assert_stopped(source: &str, why: &str) {
    let begun = std::time::Instant::now();
    let shown: String = source.chars().take(100).collect();
    match render(source) {
        Err(Error::Rendering(message)) => assert!(message.contains(why), "{shown}: {message}"),
        other => panic!("{shown}: {:?}", other.map(|text| text.len())),
    }
    assert!(begun.elapsed().as_secs() < 60, "{shown}");
}

#[test]
fn widths_and_counts_of_a_billion_are_refused_before_they_take_memory() {
    for source in [
        "{{ '%1000000000d' % 1 }}",
        "{{ '%-1000000000s' % 'a' }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%.1000000000d' % 1 }}",
        "{{ '%1000000000c' % 65 }}",
        "{{ '%d' % 1 * 1000000000 }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 1000000000) }}",
        "{{ '{:1000000000}'.format('a') }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'x'.rjust(1000000000, 'y') }}",
        "{{ 'x'.center(1000000000) }}",
        "{{ 'x'|center(1000000000) }}",
        "{{ 'x'.zfill(1000000000) }}",
        "{{ 'a\tb'.expandtabs(1000000000) }}",
        "{{ 'a'|indent(1000000000) }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 1000000000 * 'a' }}",
        "{{ [1] * 1000000000 }}",
        "{{ (1, 2) * 1000000000 }}",
        "{{ ('a' * 10000)|replace('a', 'b' * 10000) }}",
        "{{ ('a' * 10000).replace('', 'b' * 10000) }}",
        "{{ ('a' * 10000).join(range(10000)|map('string')) }}",
        "{{ [1]|batch(1000000000, 'x')|list }}",
        "{{ [1]|slice(1000000000)|list }}",
    ] {
        assert_stopped(source, "at most 67108864");
    }
    assert_stopped("{{ '{:.1000000000f}'.format(1.5) }}", "precision");
    assert_stopped("{{ '%.1000000000f' % 1.5 }}", "precision");
    assert_stopped("{{ '{:99999999999999999999}'.format(1) }}", "digits");
    assert_stopped("{{ ('a ' * 10000)|wordwrap(1, true, 'b' * 10000) }}", "more than 67108864");
    assert_stopped("{{ ('http://a.com ' * 10000)|urlize(target='b' * 10000) }}", "more than 67108864");
    assert_stopped("{{ {'a' * 20000: range(10000)|list}|pprint }}", "more than 67108864");
    assert_stopped("{{ [1, 2]|random }}", "by chance");
    assert_stopped("{{ range(1000000000) }}", "at most 100000");
    assert_stopped("{{ range(-9000000000000000000, 9000000000000000000, 1) }}", "at most 100000");
    assert_stopped("{{ [1]|tojson(indent=1000000000) }}", "indent");
    assert_stopped("{{ [[1]]|tojson(indent='x' * 100000) }}", "indent");
    assert_stopped("{{ lipsum(1000000000) }}", "lipsum");
    assert_stopped("{{ strftime_now('%Y' * 10000) }}", "strftime_now");
    assert_stopped("{{ 9 ** 1000000000 }}", "128 bits");
    assert_eq!(render("{{ '{:0100000,}'.format(1)|length > 1000 }}").unwrap(), "True");
    assert_eq!(
        render("{{ range(-9000000000000000000, 9000000000000000000, 1000000000000000000)[-1] }}").unwrap(),
        "8000000000000000000"
    );
}

#[test]
fn memory_that_is_refused_is_an_error_of_its_own() {
    let refused = |result: Result<String, Error>| match result.unwrap_err() {
        Error::OutOfMemory { bytes } => assert!(bytes >= 1_000_000, "{bytes}"),
        other => panic!("{other}"),
    };
    let little = |source: &str| Template::new(source, "", "", |bytes| bytes < 1_000_000);
    assert_eq!(little("{{ 'x' * 9 }}").unwrap().render(&HELLO, true).unwrap(), "xxxxxxxxx");
    refused(little(&"x".repeat(20_000)).map(|_| String::new()));
    for source in [
        "{{ 'x' * 1000000 }}",
        "{% for i in range(90000) %}{{ 'x' * 100 }}{% endfor %}",
        "{% set x %}{% for i in range(90000) %}0123456789{% endfor %}{% endset %}",
        "{{ range(100000)|list|pprint }}",
    ] {
        refused(little(source).unwrap().render(&HELLO, true));
    }
    let long = "x".repeat(1_000_000);
    refused(little("{{ 1 }}").unwrap().render(&[Message::new("user", &long)], true));
}

#[test]
fn values_that_grow_in_a_loop_are_stopped() {
    let repeated =
        |before: &str, step: &str| format!("{before}{{% for i in range(100000) %}}{step}{{% endfor %}}");
    let ns = "{% set ns = namespace(x='0123456789') %}";
    let list = "{% set ns = namespace(x=[1]) %}";
    for (before, step) in [
        (ns, "{% set ns.x = ns.x + ns.x %}"),
        (ns, "{% set ns.x = ns.x ~ ns.x %}"),
        (ns, "{% set ns.x = ns.x * 2 %}"),
        (ns, "{% set ns.x = [ns.x, ns.x]|join %}"),
        (ns, "{% set ns.x = '%s%s' % (ns.x, ns.x) %}"),
        (ns, "{% set ns.x = '{0}{0}'.format(ns.x) %}"),
        (ns, "{% set ns.x = ns.x|replace('0', '00000') %}"),
        (ns, "{% set ns.x = ns.x.replace('0', '00000') %}"),
        (ns, "{% set ns.x = [ns.x, ns.x]|string %}"),
        (ns, "{% set ns.x = [ns.x, ns.x]|tojson %}"),
        (ns, "{% set ns.x = ns.x|e ~ '<' * 1000 %}"),
        (ns, "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
        (ns, "{% macro m() %}{{ ns.x }}{{ ns.x }}{% endmacro %}{% set ns.x = m() %}"),
        (ns, "{% set ns.x = ns.x.join(ns.x) %}"),
        (list, "{% set ns.x = ns.x + ns.x %}"),
        (list, "{% set ns.x = [ns.x, ns.x] %}"),
        (list, "{% set ns.x = (ns.x, ns.x) %}"),
        (list, "{% set ns.x = {'a': ns.x, 'b': ns.x} %}"),
        (list, "{% set ns.x = [ns.x] %}"),
        (list, "{% set ns.x = dict(a=ns.x) %}"),
        (list, "{% set ns.x = [[ns.x]|map('list')|list] %}"),
        (list, "{% set ns.x = [ns.x]|groupby(0) %}"),
        (list, "{% set ns.x = namespace(x=ns.x) %}"),
        (list, "{% set ns.x = joiner(ns.x) %}"),
        (list, "{% set ns.x = cycler(ns.x) %}"),
        (list, "{% set ns.x = loop %}"),
        (list, "{% set ns.x = ns.x.append %}{% set ns.x = ns %}"),
    ] {
        let source = repeated(before, step);
        match render(&source) {
            Err(Error::Rendering(_)) => {}
            other => panic!("{step}: {:?}", other.map(|text| text.len())),
        }
    }
}

#[test]
fn output_of_a_loop_is_bounded_wherever_it_goes() {
    let long = "x".repeat(100_000);
    let many = format!("{{% for i in range(100000) %}}{long}{{% endfor %}}");
    for source in [
        format!("{{% set a %}}{many}{{% endset %}}"),
        format!("{{% filter length %}}{many}{{% endfilter %}}"),
        format!("{{% macro m() %}}{many}{{% endmacro %}}{{% set a = m() %}}"),
        format!("{{% macro m() %}}{{{{ caller() }}}}{{% endmacro %}}{{% call m() %}}{many}{{% endcall %}}"),
        format!("{{% set a %}}{{% generation %}}{many}{{% endgeneration %}}{{% endset %}}"),
        many.clone(),
    ] {
        assert!(matches!(render(&source), Err(Error::Rendering(_))));
    }
    assert_stopped(
        "{% for i in range(100000) %}{% for i in range(100) %}{% macro m() %}{% endmacro %}{% endfor %}{% endfor %}",
        "memory",
    );
}

#[test]
fn slow_steps_in_a_loop_are_stopped() {
    let big = "{% set s = 'ab' * 10000000 %}{% set l = [s] %}{% set m = ['ab' * 10000000] %}";
    let each =
        |step: &str| format!("{big}{{% for i in range(100000) %}}{{% set x = {step} %}}{{% endfor %}}");
    for step in [
        "s|length",
        "s[15000000]",
        "s[-15000000]",
        "'x' in s",
        "l == m",
        "m[0] in l",
        "l.count(m[0])",
        "s.find('x')",
        "{s: 1}",
        "{}[s]",
        "l|sort",
        "l|unique|list",
        "s.strip('xyz')",
        "s.format()",
        "s is lower",
        "messages|sort(attribute=s)",
        "s|wordwrap(3)",
        "l|pprint",
        "s|urlencode",
        "s|urlize",
        "s|striptags",
        "('&abcdefgh' * 1000000)|striptags",
        "('a ' * 100000)|urlize(extra_schemes=['ab:'] * 100000)",
        "{s: 1}|xmlattr",
        "s|filesizeformat",
    ] {
        let begun = std::time::Instant::now();
        let result = render(&each(step));
        assert!(matches!(result, Err(Error::Rendering(_))), "{step}: {result:?}");
        assert!(begun.elapsed().as_secs() < 60, "{step}: {:?}", begun.elapsed());
    }
    let loops = format!(
        "{big}{{% for i in range(100000) %}}{{% for c in s %}}{{% break %}}{{% endfor %}}{{% endfor %}}"
    );
    assert_stopped(&loops, "at most 67108864");
    let filtered = format!("{big}{{% for c in s if c == 'x' %}}{{% endfor %}}");
    assert_stopped(&filtered, "at most 67108864");
}

#[test]
fn deep_recursion_is_stopped_before_the_stack_ends() {
    let maps = format!("{{{{ 'a'|map({})|list }}}}", vec!["'map'"; 1500].join(","));
    assert_stopped(&maps, "levels deep");
    let splats = format!("{{% set r = range(100000)|list %}}{{{{ dict({}) }}}}", vec!["*r"; 1000].join(","));
    assert_stopped(&splats, "arguments at once");
    for source in [
        "{% macro m(x) %}{{ m([x]) }}{% endmacro %}{{ m(1) }}",
        "{% macro m() %}{% call m() %}{% endcall %}{% endmacro %}{{ m() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% block b %}{{ self.b() }}{% endblock %}",
        "{% macro m(x) %}{{ caller(m) }}{% endmacro %}{% call(f) m() %}{{ f() }}{% endcall %}",
    ] {
        assert!(matches!(render(source), Err(Error::Rendering(_))), "{source}");
    }
}

#[test]
fn long_and_nested_sources_compile_or_are_refused() {
    let chain = |operand: &str, operator: &str, count: usize| vec![operand; count].join(operator);
    for (source, is_fine) in [
        (format!("{{{{ {} }}}}", chain("1", "+", 1000)), true),
        (format!("{{{{ {} }}}}", chain("'a'", "~", 1000)), true),
        (format!("{{{{ {} }}}}", chain("1", "-", 250)), true),
        (format!("{{{{ {} }}}}", chain("1", "-", 100_000)), false),
        (format!("{{{{ {} }}}}", chain("1", " and ", 250)), true),
        (format!("{{{{ {} }}}}", chain("1", " and ", 100_000)), false),
        (format!("{{{{ 1{} }}}}", "|string".repeat(250)), true),
        (format!("{{{{ 1{} }}}}", "|string".repeat(100_000)), false),
        (format!("{{{{ messages{} is undefined }}}}", "[0]".repeat(100_000)), false),
        (format!("{{{{ messages{} is undefined }}}}", ".a".repeat(100_000)), false),
        (format!("{{{{ {}1 }}}}", "not ".repeat(100_000)), true),
        (format!("{{{{ {}1 }}}}", "-".repeat(20)), true),
        (format!("{{{{ {}1 }}}}", "- ".repeat(100_000)), false),
        (format!("{{{{ {}1{} }}}}", "[".repeat(20), "]".repeat(20)), true),
        (format!("{{{{ {}1{} }}}}", "[".repeat(100_000), "]".repeat(100_000)), false),
        (format!("{{{{ {}1{} }}}}", "{1:".repeat(100_000), "}".repeat(100_000)), false),
        (format!("{{{{ {}1{} }}}}", "dict(".repeat(100_000), ")".repeat(100_000)), false),
        (format!("{{{{ {} }}}}", chain("1", " if 1 else ", 25)), true),
        (format!("{{{{ {} }}}}", chain("1", " if 1 else ", 100_000)), false),
        (format!("{{% set {}a{} = 1 %}}", "(".repeat(100_000), ")".repeat(100_000)), false),
        (format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(250)), true),
        (format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(50_000)), false),
        (format!("{{{{ [{}]|length }}}}", chain("1", ",", 100_000)), true),
        (format!("{}x{}", "{% if 1 %}".repeat(45), "{% endif %}".repeat(45)), true),
    ] {
        let shown: String = source.chars().take(60).collect();
        match Template::new(&source, "", "", can_allocate).and_then(|template| template.render(&HELLO, true))
        {
            Ok(_) => assert!(is_fine, "{shown}"),
            Err(error) => assert!(!is_fine, "{shown}: {error}"),
        }
    }
    // Everything at once, on a thread whose stack is small.
    let blocks = 45;
    let deep = format!(
        "{}{{{{ {}1{}{} }}}}{}",
        "{% if 1 %}".repeat(blocks),
        "[".repeat(28),
        "]".repeat(28),
        "|list".repeat(220),
        "{% endif %}".repeat(blocks)
    );
    let render = move || {
        Template::new(&deep, "", "", can_allocate).and_then(|template| template.render(&HELLO, true)).unwrap()
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(render).unwrap();
    assert!(thread.join().unwrap().starts_with("[["));
}

#[test]
fn statements_that_are_not_known_are_not_supported() {
    for (source, what) in [
        ("a\n{% trans %}b{% endtrans %}", "`trans`"),
        ("{% do x() %}", "`do`"),
        ("{% autoescape true %}{% endautoescape %}", "`autoescape`"),
        ("{% for x in [1] %}{% with %}{% break %}{% endwith %}{% endfor %}", "`break` within `with`"),
        ("{{ 999999999999999999999999999999999999999999 }}", "2^127"),
    ] {
        let error = Template::new(source, "", "", can_allocate).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{source}: {error}");
        assert!(error.to_string().contains(what) && error.to_string().contains("line"), "{error}");
    }
    let error = Template::new("a\n{% trans %}", "", "", can_allocate).unwrap_err();
    assert_eq!(error.to_string(), "chat template (line 2): the statement `trans`");
}

#[test]
fn lines_of_errors_are_those_of_the_template() {
    let at = |source: &str| render(source).unwrap_err().to_string();
    assert!(at("\n\n{# a\nb #}\n{{ undef.x }}").contains("(line 5)"));
    assert!(at("a\r\nb\rc{{\n\n'x' - 1 }}").contains("(line 3)"));
    assert!(at("{% raw %}\n\n{% endraw %}\n{% for x in 5 %}{% endfor %}").contains("(line 4)"));
    assert!(at("{% if true %}\n{{ 1 +\n }}{% endif %}").contains("(line 2)"));
    assert!(at("{% if true %}\n\n{% for x in [] %}\n").contains("(line 3)"));
}

#[test]
fn what_the_rewriting_makes_stays_hidden() {
    for source in
        ["{{ 1|_add(2) }}", "{{ [1]|map('_add', 2)|list }}", "{{ 1 is _x }}", "{{ [1]|select('_x')|list }}"]
    {
        assert!(render(source).is_err(), "{source}");
    }
    assert_eq!(
        render("{{ '_add' is filter }}{{ _self is defined }}{{ self is defined }}").unwrap(),
        "FalseFalseTrue"
    );
    assert!(render("{{ loop.cycle() }}").is_err());
    assert!(render("{% for x in [1] %}{{ loop.cycle() }}{% endfor %}").is_err());
}
