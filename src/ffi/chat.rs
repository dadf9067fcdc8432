//! Chat
//! ====
//! Turns a conversation into the text that the model was trained to continue, with the template in the model's file.

use std::ffi::c_char;
use std::mem::size_of;

use super::boundary;
use super::buffers;
use super::handle::borrow;
use super::model::sm_model;
use super::params::boolean;
use super::status::{Failure, SM_STATUS_OUT_OF_MEMORY, sm_status};
use crate::chat::Message;
use crate::profile::{self, Zone};

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
/// message's content is then read as that token, too: check text that you don't trust. `SM_STATUS_UNSUPPORTED` if the
/// model's file has no template.
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
    boundary::call(|| unsafe {
        let template = borrow(model, "model")?.model.chat_template()?;
        let messages = conversation(messages, stride, n_messages)?;
        let add_generation_prompt = boolean(add_generation_prompt, "add_generation_prompt")?;
        let _zone = profile::scope(Zone::ChatTemplate);
        let prompt = template.render(&messages, add_generation_prompt)?;
        buffers::give_text(prompt.as_bytes(), text, capacity, length, "text")
    })
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
    if n > 0 && stride < size_of::<sm_chat_message>() {
        let least = size_of::<sm_chat_message>();
        return Err(Failure::invalid(format!("stride is {stride}; a message has {least} bytes")));
    }
    let bytes = n.checked_mul(stride).ok_or_else(|| Failure::invalid(format!("n_messages is {n}")))?;
    // SAFETY: the function's contract; this checks for NULL and for sizes that can't be.
    unsafe { buffers::array(messages.cast::<u8>(), bytes, "messages") }?;
    let mut conversation = Vec::new();
    let no_room = |_| Failure::new(SM_STATUS_OUT_OF_MEMORY, format!("no memory for {n} messages"));
    conversation.try_reserve_exact(n).map_err(no_room)?;
    for i in 0..n {
        // SAFETY: message i is within the array; read unaligned, since the stride is the caller's.
        let message = unsafe { messages.byte_add(i * stride).read_unaligned() };
        // SAFETY: the function's contract.
        let (role, content) =
            unsafe { (buffers::string(message.role, "role")?, buffers::string(message.content, "content")?) };
        conversation.push(Message { role, content });
    }
    Ok(conversation)
}
