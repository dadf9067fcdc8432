//! Chat templates convert a conversation to the text that a model was trained to continue.
//! A template is a Jinja program in a model's file (`tokenizer.chat_template`). minijinja runs it, with the settings and
//! helpers of Hugging Face's `apply_chat_template`, and renders the text that jinja2 renders there.
//!
//! `rewrite` rewrites a template into the part of the language in which minijinja and jinja2 agree; `python` has the
//! values, operators, filters, tests and methods that this part uses. The crate knows nothing of models and tokens.
//!
//! ```
//! use smallmind_templates::{Message, Template, can_allocate};
//!
//! let source = "{% for m in messages %}[{{ m.role }}] {{ m['content'].strip() }}{{ eos_token }}{% endfor %}";
//! let template = Template::new(source, "<s>", "</s>", can_allocate)?;
//! assert_eq!(template.render(&[Message::new("user", " Hello ")], true)?, "[user] Hello</s>");
//! # Ok::<(), smallmind_templates::Error>(())
//! ```
//!
//! **Templates come from outside**, so source, nesting, steps, work, memory and output are bounded.

mod argument;
mod clock;
mod error;
mod memory;
mod python;
mod rewrite;

#[cfg(test)]
mod tests;

pub use argument::Argument;
pub use error::Error;
pub use memory::{CanAllocate, can_allocate};

use memory::Memory;
use minijinja::{Environment, Output, State, Value};
use python::{BUDGET, Budget};

/// Longest template, in bytes; the longest of well-known models have 20,000.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// Longest rendered text, in bytes.
pub const MAX_RENDERED_BYTES: usize = 64 << 20;
/// Most steps of one rendering; well-known templates take a few dozen for each message.
const FUEL: u64 = 10_000_000;
/// Most levels of nested macros and blocks.
const RECURSION_LIMIT: usize = 100;
const NAME: &str = "chat_template";
/// Variables that a rendering itself gives values.
const OWN: [&str; 5] = ["messages", "add_generation_prompt", "bos_token", "eos_token", BUDGET];
/// Memory that a message takes during a rendering, in bytes, in addition to its text.
const MESSAGE_BYTES: usize = 1024;
/// Memory that compiling a template takes, roughly: of its own, and for each byte.
const COMPILED: usize = 256 << 10;
const COMPILED_EACH: usize = 64;

/// A message of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message<'a> {
    /// The speaker: `"system"`, `"user"`, `"assistant"`, or another role that the template knows.
    pub role: &'a str,
    /// The text.
    pub content: &'a str,
}

impl<'a> Message<'a> {
    /// A message with this role and text.
    pub const fn new(role: &'a str, content: &'a str) -> Self {
        Message { role, content }
    }
}

/// Memory that a rendering takes for its copies of the messages, in bytes.
pub fn bytes_of(messages: &[Message<'_>]) -> usize {
    texts_of(messages).saturating_add(messages.len().saturating_mul(MESSAGE_BYTES))
}

fn texts_of(messages: &[Message<'_>]) -> usize {
    let texts = messages.iter().map(|message| message.role.len().saturating_add(message.content.len()));
    texts.fold(0, usize::saturating_add)
}

/// A compiled chat template. It may be shared by threads.
pub struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    memory: Memory,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let source = self.environment.get_template(NAME).map_or(0, |template| template.source().len());
        f.debug_struct("Template").field("source_bytes", &source).finish_non_exhaustive()
    }
}

impl Template {
    /// Compiles `source`. The template sees `bos` and `eos` as `bos_token` and `eos_token`. `can_allocate` is asked before
    /// memory is taken, here and in each rendering; [`can_allocate`] asks the global allocator.
    ///
    /// # Errors
    /// [`Error::Source`] for a template that is empty, is longer than [`MAX_TEMPLATE_BYTES`] or doesn't compile, then with
    /// the line; [`Error::Unsupported`] for a statement that this crate doesn't know, or nesting beyond its limits;
    /// [`Error::OutOfMemory`].
    pub fn new(source: &str, bos: &str, eos: &str, can_allocate: CanAllocate) -> Result<Self, Error> {
        if source.trim().is_empty() {
            return Err(Error::Source("the chat template is empty (tokenizer.chat_template)".into()));
        }
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(Error::Source(format!(
                "a chat template of {} bytes; at most {MAX_TEMPLATE_BYTES} are taken",
                source.len()
            )));
        }
        let memory = Memory(can_allocate);
        // The rewriting and the compilation allocate infallibly.
        memory.ask(source.len().saturating_mul(COMPILED_EACH).saturating_add(COMPILED))?;
        let rewritten = rewrite::rewrite(source).map_err(|error| {
            let text = format!("chat template (line {}): {}", error.line, error.message);
            if error.is_unsupported { Error::Unsupported(text) } else { Error::Source(text) }
        })?;
        let mut environment = Environment::empty();
        environment.set_keep_trailing_newline(true);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_LIMIT);
        environment.set_formatter(emit);
        python::install(&mut environment);
        environment.add_template_owned(NAME, rewritten).map_err(|error| Error::of_source(&error))?;
        Ok(Self { environment, bos: memory.copied(bos)?, eos: memory.copied(eos)?, memory })
    }

    /// The text of a conversation. With `add_generation_prompt` it ends with the beginning of the assistant's answer.
    ///
    /// Contents are not escaped: the text of a special token within a content can't be told from the template's own.
    ///
    /// # Errors
    /// [`Error::Rendering`] with the template's own message where it rejects the messages (an unknown role, turns in the
    /// wrong order), and where a rendering exceeds a limit; [`Error::OutOfMemory`].
    pub fn render(&self, messages: &[Message<'_>], add_generation_prompt: bool) -> Result<String, Error> {
        self.render_with(messages, add_generation_prompt, &[])
    }

    /// [`Template::render`] with variables that the template sees in addition, by their names: `tools`, `documents`, and
    /// switches of its own such as `enable_thinking`. The last of a name counts.
    ///
    /// # Errors
    /// Those of [`Template::render`]; [`Error::Rendering`] for a name that the rendering itself gives a value, and for
    /// values that are nested too deep or too large.
    pub fn render_with(
        &self,
        messages: &[Message<'_>],
        add_generation_prompt: bool,
        arguments: &[(String, Argument)],
    ) -> Result<String, Error> {
        if let Some((name, _)) = arguments.iter().find(|(name, _)| OWN.contains(&name.as_str())) {
            return Err(Error::Rendering(format!("the chat template's {name} is no argument")));
        }
        let template = self.environment.get_template(NAME);
        let template = template.map_err(|error| Error::Internal(error::describe(&error)))?;
        let bytes = arguments.iter().map(|(name, argument)| name.len() + argument.bytes());
        self.memory.ask(bytes.fold(bytes_of(messages), usize::saturating_add))?;
        let context = self.context(messages, add_generation_prompt, arguments);
        let context = context.map_err(|error| Error::of_rendering(&error))?;
        let mut rendered = Bounded { bytes: Vec::new(), memory: self.memory };
        template.render_captured_to(context, &mut rendered).map_err(|error| Error::of_rendering(&error))?;
        String::from_utf8(rendered.bytes)
            .map_err(|error| Error::Internal(format!("the chat template: {error}")))
    }

    /// The variables that a template sees. Without tools and documents these are none, as `apply_chat_template` passes them.
    fn context(
        &self,
        messages: &[Message<'_>],
        add_generation_prompt: bool,
        arguments: &[(String, Argument)],
    ) -> Result<Value, minijinja::Error> {
        let texts = arguments.iter().map(|(_, argument)| argument.bytes());
        let texts = texts.fold(texts_of(messages), usize::saturating_add);
        let budget = Budget::new(texts, self.memory);
        let message = |message: &Message<'_>| {
            let pair = |name: &str, text: &str| (Value::from(name), Value::from(text));
            python::dict(&budget, vec![pair("role", message.role), pair("content", message.content)])
        };
        let messages = messages.iter().map(message).collect::<Result<_, _>>()?;
        let messages = python::list(&budget, messages)?;
        let mut variables = vec![("tools", Value::from(())), ("documents", Value::from(()))];
        for (name, argument) in arguments {
            variables.push((name.as_str(), argument.value(&budget)?));
        }
        variables.extend([
            ("messages", messages),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("bos_token", Value::from(&self.bos)),
            ("eos_token", Value::from(&self.eos)),
            (BUDGET, Value::from_object(budget)),
        ]);
        Ok(Value::from_iter(variables))
    }
}

/// Writes a value into the output, or into a text that a template puts together.
fn emit(out: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    let budget = Budget::of(state)?;
    match value.as_str() {
        Some(text) => {
            budget.make(text.len())?;
            out.write_str(text)?;
        }
        None => {
            out.write_str(&python::shown(value, &budget)?)?;
        }
    }
    Ok(())
}

/// Output up to [`MAX_RENDERED_BYTES`].
struct Bounded {
    bytes: Vec<u8>,
    memory: Memory,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > MAX_RENDERED_BYTES - self.bytes.len() {
            return Err(std::io::Error::other(format!("more than {MAX_RENDERED_BYTES} bytes of text")));
        }
        self.memory.reserve(&mut self.bytes, bytes.len()).map_err(std::io::Error::other)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
