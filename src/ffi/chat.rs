//! Chat
//! ====
//! Turns a conversation into the text that the model was trained to continue, with the template in the model's file.

use std::ffi::c_char;
use std::mem::size_of;
use std::ptr;

use super::boundary;
use super::buffers;
use super::handle::borrow;
use super::model::sm_model;
use super::params::{self, Params, Versioned, boolean, fields};
use super::status::{Failure, sm_status};
use crate::chat::{Arguments, Message, Prompt};
use crate::memory::reserve::{held, with_room};
use crate::memory::spare::Hold;
use crate::profile::{self, Zone};
use crate::tokenizer::MAX_TEXT_BYTES;

/// Most messages of a conversation.
const MAX_MESSAGES: usize = 1 << 16;

/// One turn of a conversation.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_chat_message {
    /// The speaker: usually "system", "user" or "assistant". NUL-terminated UTF-8.
    pub role: *const c_char,
    /// The speaker's text. NUL-terminated UTF-8.
    pub content: *const c_char,
}

/// The prompt for `n_messages` messages, `stride` bytes apart (`sizeof(sm_chat_message)`). Tokenise it with
/// `parse_special` 1.
///
/// `add_generation_prompt` 1 ends the prompt where the assistant's answer begins. A control token's name within a
/// message's content is then read as that token, too: for text that a person typed, call `sm_chat_tokenize` instead.
/// `SM_STATUS_UNSUPPORTED` if the model's file has no template. `SM_STATUS_INVALID_ARGUMENT`: more than 65,536 messages, or
/// a role or a content of more than 16,777,216 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_chat_apply(
    model: *const sm_model,
    messages: *const sm_chat_message,
    stride: usize,
    n_messages: usize,
    add_generation_prompt: i32,
    text: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let template = borrow(model, "model")?.model.chat_template()?;
        let messages = conversation(messages, stride, n_messages)?;
        let add_generation_prompt = boolean(add_generation_prompt, "add_generation_prompt")?;
        let _zone = profile::scope(Zone::ChatTemplate);
        let _held = hold_rendering(&messages)?;
        let prompt = template.render(&messages, add_generation_prompt)?;
        buffers::give_text(prompt.as_bytes(), text, capacity, length, "text")
    })
}

/// The tokens of the prompt for `n_messages` messages, `stride` bytes apart (`sizeof(sm_chat_message)`), as `sm_tokenize`
/// would make them with `parse_special` 1 of the text of `sm_chat_apply`, except that roles and contents are inert: only the
/// template writes control tokens, and the name of one in a message, as a person may type it, is text. With `add_bos` 1 (0
/// or 1) they begin with the token for the beginning of a text, once, if the vocabulary adds one, whether the template
/// writes it or not.
///
/// Otherwise as `sm_chat_apply`. `SM_STATUS_UNSUPPORTED` also if the model has no tokenizer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_chat_tokenize(
    model: *const sm_model,
    messages: *const sm_chat_message,
    stride: usize,
    n_messages: usize,
    add_generation_prompt: i32,
    add_bos: i32,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    let params = sm_chat_params { add_generation_prompt, add_bos, ..Params::defaults() };
    // SAFETY: the header's contract; `params` is filled in.
    unsafe { sm_chat_tokenize_with(model, messages, stride, n_messages, &params, tokens, capacity, count) }
}

/// What goes into a prompt in addition to the messages. Fill it with `sm_chat_params_init`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_chat_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// Variables that the template sees, as a JSON object: `{"tools": [...], "enable_thinking": false}`. NULL for none.
    pub arguments: *const c_char,
    /// The beginning of the assistant's message, at which the prompt ends. NULL for none.
    pub prefix: *const c_char,
    /// 1, the default, ends the prompt where the assistant's answer begins.
    pub add_generation_prompt: i32,
    /// 1, the default, begins with the token for the beginning of a text, once, if the vocabulary adds one.
    pub add_bos: i32,
}

// SAFETY: repr(C); integers and raw pointers.
unsafe impl Versioned for sm_chat_params {
    const NAME: &'static str = "sm_chat_params";

    fields!(struct_size, arguments, prefix, add_generation_prompt, add_bos);
}

// SAFETY: struct_size is first.
unsafe impl Params for sm_chat_params {
    fn defaults() -> Self {
        let (arguments, prefix) = (ptr::null(), ptr::null());
        Self { struct_size: size_of::<Self>(), arguments, prefix, add_generation_prompt: 1, add_bos: 1 }
    }
}

/// Fills `params` with the defaults. `struct_size` is `sizeof(sm_chat_params)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_chat_params_init(params: *mut sm_chat_params, struct_size: usize) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// As `sm_chat_tokenize`, with variables of the template and the beginning of the answer. `params` may be NULL. Texts in
/// `arguments` and `prefix` are inert, as contents are.
///
/// `SM_STATUS_INVALID_ARGUMENT` also if `arguments` is no JSON object, has a key that is no name of a variable or one of
/// the template's own (`messages`), or is longer than 16,777,216 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_chat_tokenize_with(
    model: *const sm_model,
    messages: *const sm_chat_message,
    stride: usize,
    n_messages: usize,
    params: *const sm_chat_params,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let model = &borrow(model, "model")?.model;
        let messages = conversation(messages, stride, n_messages)?;
        let params = params::read(params)?;
        let text = |text: *const c_char, what| match text.is_null() {
            true => Ok(""),
            false => buffers::string(text, MAX_TEXT_BYTES, what),
        };
        let mut arguments = Arguments::default();
        let json = text(params.arguments, "arguments")?;
        if !json.is_empty() {
            arguments.extend(json)?;
        }
        let prompt = Prompt::default()
            .with_generation_prompt(boolean(params.add_generation_prompt, "add_generation_prompt")?)
            .with_arguments(&arguments)
            .with_prefix(text(params.prefix, "prefix")?);
        let add_bos = boolean(params.add_bos, "add_bos")?;
        let _held = hold_rendering(&messages)?;
        let prompt = model.chat_tokens_with(&messages, &prompt, add_bos)?;
        buffers::give_array(&prompt, tokens, capacity, count, "tokens")
    })
}

/// Holds memory ready for what a template makes of the messages: copies that can't fail, of which it trims some, splits or
/// joins.
fn hold_rendering(messages: &[Message<'_>]) -> crate::Result<Option<Hold>> {
    const COPIES: usize = 4;
    let bytes = messages.iter().map(|message| message.role.len() + message.content.len());
    held(bytes.fold(1 << 20, |sum, bytes| sum.saturating_add(COPIES * bytes)), "a conversation")
}

/// The caller's messages.
///
/// # Safety
/// `messages` is NULL or readable for `n` × `stride` bytes, its strings NUL-terminated or NULL, all of it
/// unchanged during `'a`.
unsafe fn conversation<'a>(
    messages: *const sm_chat_message,
    stride: usize,
    n: usize,
) -> Result<Vec<Message<'a>>, Failure> {
    let (known, n) = (size_of::<sm_chat_message>(), buffers::at_most(n, MAX_MESSAGES, "n_messages")?);
    if n > 0 && !(known..=params::LARGEST).contains(&stride) {
        return Err(Failure::invalid(format!(
            "stride is {stride}; a message has {known} bytes, and no structure more than {}",
            params::LARGEST
        )));
    }
    let bytes = n.checked_mul(stride).ok_or_else(|| Failure::invalid(format!("stride is {stride}")))?;
    // SAFETY: the function's contract; this checks for NULL and for sizes that can't be.
    let bytes = unsafe { buffers::array(messages.cast::<u8>(), bytes, "messages") }?;
    let mut conversation = with_room(n, "the messages")?;
    for message in bytes.chunks_exact(stride.max(1)) {
        params::refuse_unknown("sm_chat_message", known, &message[known..])?;
        // SAFETY: as many bytes as a message has; read unaligned, since the stride is the caller's.
        let message = unsafe { message.as_ptr().cast::<sm_chat_message>().read_unaligned() };
        // SAFETY: the function's contract.
        let role = unsafe { buffers::string(message.role, MAX_TEXT_BYTES, "role") }?;
        // SAFETY: the function's contract.
        let content = unsafe { buffers::string(message.content, MAX_TEXT_BYTES, "content") }?;
        conversation.push(Message::new(role, content));
    }
    Ok(conversation)
}
