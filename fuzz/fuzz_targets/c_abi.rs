//! The C ABI called in random order with random arguments, on two tiny models: with random weights, and from a file with a
//! vocabulary. Every call returns a status of the header; a refused one leaves no handle; nothing is read or written
//! outside of the buffers, which have just the sizes that are told. What the header forbids is not done: objects are freed
//! once, and pointers are NULL or valid.
//! From the top folder: `mkdir -p fuzz/corpus/c_abi && cargo +nightly fuzz run c_abi fuzz/corpus/c_abi`.

#![no_main]

use std::ffi::{CStr, CString, c_void};
use std::ptr::{null, null_mut};

use libfuzzer_sys::fuzz_target;
use smallmind::ffi::chat::{sm_chat_apply, sm_chat_message, sm_chat_tokenize};
use smallmind::ffi::context::*;
use smallmind::ffi::generate::*;
use smallmind::ffi::model::*;
use smallmind::ffi::random::{sm_gpt_params, sm_gpt_params_init, sm_model_create_random};
use smallmind::ffi::sampler::*;
use smallmind::ffi::status::*;
use smallmind::ffi::team::{sm_team, sm_team_create, sm_team_free};
use smallmind::ffi::tokenizer::*;

const FILE: &[u8] = include_bytes!("../../tests/goldens/gguf/untied-mixed.gguf");
/// Most calls of one input.
const CALLS: usize = 64;

/// Numbers from the fuzzer's bytes; zeroes behind their end.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// Mostly small, sometimes absurd.
    fn size(&mut self) -> usize {
        match self.byte() {
            250 => usize::MAX,
            251 => usize::MAX / 2 + 1,
            252 => 1 << 40,
            253 => 4096,
            byte => usize::from(byte) / 4,
        }
    }

    fn float(&mut self) -> f32 {
        match self.byte() {
            250 => f32::NAN,
            251 => f32::INFINITY,
            252 => -1.0,
            byte => f32::from(byte) / 64.0,
        }
    }

    fn int(&mut self) -> i32 {
        i32::from(self.byte() as i8) / 16
    }

    fn tokens(&mut self) -> Vec<u32> {
        (0..self.below(12))
            .map(|_| if self.byte() == 255 { u32::MAX } else { u32::from(self.byte()) / 4 })
            .collect()
    }

    fn text(&mut self) -> CString {
        let pieces = ["a", " b", "<|im_end|>", "\n", "\u{e9}", "<", "\u{fdd0}", "user", "system"];
        let text: String = (0..self.below(6)).map(|_| pieces[self.below(pieces.len())]).collect();
        CString::new(text).unwrap()
    }

    /// One of the objects, or NULL.
    fn pick<T>(&mut self, objects: &[*mut T]) -> *mut T {
        objects.get(self.below(objects.len() + 1)).copied().unwrap_or(null_mut())
    }
}

/// The living objects.
#[derive(Default)]
struct World {
    models: Vec<*mut sm_model>,
    contexts: Vec<*mut sm_context>,
    samplers: Vec<*mut sm_sampler>,
    teams: Vec<*mut sm_team>,
}

/// Keeps an object that a call has made; a refused call has made none.
fn keep<T>(objects: &mut Vec<*mut T>, object: *mut T, status: sm_status) {
    assert_eq!(checked(status) == SM_STATUS_OK, !object.is_null());
    objects.extend((!object.is_null()).then_some(object));
}

/// Checks that a status is one of the header, with a message where it is a failure, and that it tells of no defect.
fn checked(status: sm_status) -> sm_status {
    // SAFETY: both functions return strings that live for ever or until the next failure.
    let (name, message) =
        unsafe { (CStr::from_ptr(sm_status_name(status)), CStr::from_ptr(sm_last_error())) };
    assert_ne!(name, c"unknown status", "{status}");
    assert_ne!(status, SM_STATUS_INTERNAL, "{message:?}");
    assert!(status == SM_STATUS_OK || !message.is_empty());
    status
}

/// A buffer of up to as many elements as are chosen, and its capacity.
fn buffer<T: Clone>(choices: &mut Choices<'_>, value: T) -> Vec<T> {
    vec![value; [0, 1, 7, 300][choices.below(4)]]
}

/// Counts down to the call that stops.
///
/// # Safety
/// `left` is NULL, where the parameters end before it, or points to a counter that nobody else uses now.
unsafe fn is_last(left: *mut c_void) -> i32 {
    // SAFETY: the function's contract.
    let Some(left) = (unsafe { left.cast::<u32>().as_mut() }) else { return 0 };
    *left = left.saturating_sub(1);
    i32::from(*left == 0)
}

unsafe extern "C" fn on_token(user_data: *mut c_void, event: *const sm_token_event) -> i32 {
    // SAFETY: the library passes a live event.
    let event = unsafe { &*event };
    assert!(event.is_new == 1 || event.is_new == 0);
    // SAFETY: the target passes a counter.
    unsafe { is_last(user_data) }
}

unsafe extern "C" fn on_text(
    user_data: *mut c_void,
    _: u32,
    text: *const std::ffi::c_char,
    bytes: usize,
) -> i32 {
    // SAFETY: the library passes text with a NUL behind.
    let text = unsafe { CStr::from_ptr(text) };
    assert!(text.to_bytes().len() <= bytes && text.to_str().is_ok());
    // SAFETY: the target passes a counter.
    unsafe { is_last(user_data) }
}

/// Filled parameters, of which `change` changes some; sometimes of another size, which is refused or cuts fields off.
fn params<T>(
    choices: &mut Choices<'_>,
    init: unsafe extern "C" fn(*mut T, usize) -> sm_status,
    change: impl FnOnce(&mut Choices<'_>, &mut T),
) -> Box<T> {
    let mut filled = Box::<T>::new_uninit();
    // SAFETY: room for the structure, which a call with its own size fills.
    let mut filled = unsafe {
        assert_eq!(init(filled.as_mut_ptr(), size_of::<T>()), SM_STATUS_OK);
        filled.assume_init()
    };
    change(choices, &mut filled);
    if choices.byte() < 16 {
        let size = choices.below(size_of::<T>() + 1);
        // SAFETY: the first field of every such structure.
        unsafe { std::ptr::from_mut(&mut *filled).cast::<usize>().write(size) };
    }
    filled
}

/// # Safety
/// The objects of `world` are alive.
unsafe fn make(choices: &mut Choices<'_>, world: &mut World) {
    match choices.below(5) {
        0 if world.models.len() < 2 => {
            let gpt = params(choices, sm_gpt_params_init, |choices, gpt: &mut sm_gpt_params| {
                (gpt.vocab, gpt.context, gpt.dim, gpt.layers, gpt.heads) = (64, 32, 16, 1, 2);
                match choices.below(12) {
                    0 => gpt.vocab = choices.size() % 200,
                    1 => gpt.dim = choices.size() % 100,
                    2 => gpt.heads = choices.size() % 100,
                    _ => {}
                }
            });
            let mut model = null_mut();
            // SAFETY: filled parameters, and a variable for the handle.
            let status = unsafe { sm_model_create_random(&*gpt, null(), &mut model) };
            keep(&mut world.models, model, status);
        }
        1 if world.models.len() < 2 => {
            let cut = if choices.byte() < 200 { FILE.len() } else { choices.below(256) * FILE.len() / 256 };
            let bytes = FILE[..cut].to_vec();
            let mut model = null_mut();
            // SAFETY: as many bytes as are told, and a variable for the handle.
            let status = unsafe { sm_model_load_memory(bytes.as_ptr().cast(), cut, null(), &mut model) };
            keep(&mut world.models, model, status);
        }
        2 if world.teams.len() < 2 => {
            let mut team = null_mut();
            let threads = [0, 1, 2, 3, usize::MAX][choices.below(5)];
            // SAFETY: a variable for the handle.
            let status = unsafe { sm_team_create(threads, &mut team) };
            keep(&mut world.teams, team, status);
        }
        3 if world.contexts.len() < 3 => {
            let team = choices.pick(&world.teams);
            let filled =
                params(choices, sm_context_params_init, |choices, context: &mut sm_context_params| {
                    (context.n_ctx, context.n_threads, context.team) =
                        (1 + choices.below(40), 1 + choices.below(2), team);
                    match choices.below(12) {
                        0 => context.n_batch = choices.size(),
                        1 => context.n_output = choices.size() % 100,
                        2 => context.cache_type = choices.int(),
                        3 => context.rope_scale = choices.float(),
                        4 => context.n_ctx = choices.size(),
                        _ => {}
                    }
                });
            let mut context = null_mut();
            // SAFETY: a living model or NULL, filled parameters, and a variable for the handle.
            let status = unsafe { sm_context_create(choices.pick(&world.models), &*filled, &mut context) };
            keep(&mut world.contexts, context, status);
        }
        _ if world.samplers.len() < 2 => {
            let filled =
                params(choices, sm_sampler_params_init, |choices, sampler: &mut sm_sampler_params| {
                    sampler.temperature = choices.float();
                    match choices.below(8) {
                        0 => sampler.top_p = choices.float(),
                        1 => sampler.min_p = choices.float(),
                        2 => sampler.top_k = choices.size(),
                        3 => sampler.penalty_last_n = choices.size() % 1000,
                        4 => sampler.repetition_penalty = choices.float(),
                        _ => {}
                    }
                });
            let mut sampler = null_mut();
            // SAFETY: a living model or NULL, filled parameters, and a variable for the handle.
            let status = unsafe { sm_sampler_create(choices.pick(&world.models), &*filled, &mut sampler) };
            keep(&mut world.samplers, sampler, status);
        }
        _ => {}
    }
}

/// # Safety
/// The objects of `world` are alive.
unsafe fn free(choices: &mut Choices<'_>, world: &mut World) {
    // SAFETY: each object is alive, and forgotten once it is freed.
    unsafe {
        match choices.below(4) {
            0 => drop(world.models.pop().map(|model| assert_eq!(sm_model_free(model), SM_STATUS_OK))),
            1 => drop(world.samplers.pop().map(|sampler| assert_eq!(sm_sampler_free(sampler), SM_STATUS_OK))),
            2 => drop(world.contexts.pop().map(|context| assert_eq!(sm_context_free(context), SM_STATUS_OK))),
            _ => world.teams.retain(|&team| sm_team_free(team) == SM_STATUS_BUSY),
        }
    }
}

/// # Safety
/// The objects of `world` are alive.
unsafe fn use_context(choices: &mut Choices<'_>, world: &World) {
    let (context, mut count) = (choices.pick(&world.contexts), 0);
    let tokens = choices.tokens();
    // SAFETY: a living context or NULL, and buffers of the sizes that are told.
    let status = unsafe {
        match choices.below(10) {
            0 => sm_decode(context, tokens.as_ptr(), tokens.len(), choices.int()),
            1 => sm_context_rewind(context, choices.size()),
            2 => sm_context_clear(context),
            3 => {
                let mut out = buffer(choices, 0.0);
                sm_logits_copy(context, out.as_mut_ptr(), out.len(), &mut count)
            }
            4 => {
                let mut out = buffer(choices, 0);
                sm_context_tokens(context, out.as_mut_ptr(), out.len(), &mut count)
            }
            5 => sm_context_cancel(context),
            6 => sm_context_cancel_generation(context, choices.below(8) as u64),
            7 => {
                let (mut n_past, mut n_ctx) = (0, 0);
                let status = sm_context_n_past(context, &mut n_past);
                assert_eq!(sm_context_n_ctx(context, &mut n_ctx), status);
                assert!(n_past <= n_ctx);
                status
            }
            8 => sm_context_keep(context),
            _ => return generate(choices, world, context, &tokens),
        }
    };
    checked(status);
}

/// # Safety
/// The objects of `world` are alive, and so is `context`, or it is NULL.
unsafe fn generate(choices: &mut Choices<'_>, world: &World, context: *mut sm_context, prompt: &[u32]) {
    let sampler = choices.pick(&world.samplers);
    let mut left = u32::from(choices.byte());
    let stops: Vec<_> = (0..choices.below(3)).map(|_| choices.text()).collect();
    let pointers: Vec<_> = stops.iter().map(|stop| stop.as_ptr()).collect();
    let filled = params(choices, sm_generate_params_init, |choices, generate: &mut sm_generate_params| {
        generate.max_tokens = choices.size();
        generate.generation_id = choices.below(8) as u64;
        generate.user_data = std::ptr::from_mut(&mut left).cast();
        (generate.stop, generate.n_stop) = (pointers.as_ptr(), pointers.len());
        match choices.below(5) {
            0 => generate.on_token = Some(on_token),
            1 => generate.on_text = Some(on_text),
            2 => {
                generate.on_text = Some(on_text);
                generate.on_token = Some(on_token);
            }
            _ => {}
        }
    });
    let mut held = Vec::new();
    // SAFETY: living objects or NULL, a prompt of the told length, and parameters whose pointers live on.
    let status = unsafe {
        let mut count = 0;
        if !context.is_null() {
            assert_eq!(sm_context_tokens(context, null_mut(), 0, &mut count), SM_STATUS_OK);
            held.resize(count, 0);
            assert_eq!(sm_context_tokens(context, held.as_mut_ptr(), count, &mut count), SM_STATUS_OK);
        }
        sm_generate(context, sampler, prompt.as_ptr(), prompt.len(), &*filled, null_mut(), 0)
    };
    if checked(status) == SM_STATUS_OK {
        let mut now = vec![0; held.len() + prompt.len() + (1 << 12)];
        let mut count = 0;
        // SAFETY: a living context, and room for its tokens.
        unsafe {
            assert_eq!(sm_context_tokens(context, now.as_mut_ptr(), now.len(), &mut count), SM_STATUS_OK)
        };
        assert!(
            now[..count].starts_with(&[held.as_slice(), prompt].concat()),
            "the prompt is behind what was there"
        );
    }
}

/// # Safety
/// The objects of `world` are alive.
unsafe fn use_text(choices: &mut Choices<'_>, world: &World) {
    let (model, mut count) = (choices.pick(&world.models), 0);
    let (text, tokens) = (choices.text(), choices.tokens());
    let contents: Vec<_> = (0..choices.below(4)).map(|_| (choices.text(), choices.text())).collect();
    let messages: Vec<_> = contents
        .iter()
        .map(|(role, content)| sm_chat_message { role: role.as_ptr(), content: content.as_ptr() })
        .collect();
    let (stride, flag) = (size_of::<sm_chat_message>(), choices.int());
    let (mut ids, mut bytes) = (buffer(choices, 0), buffer(choices, 0));
    // SAFETY: a living model or NULL, and buffers of the sizes that are told.
    let status = unsafe {
        match choices.below(6) {
            0 => sm_tokenize(
                model,
                text.as_ptr(),
                text.as_bytes().len(),
                flag,
                choices.int(),
                ids.as_mut_ptr(),
                ids.len(),
                &mut count,
            ),
            1 => sm_detokenize(
                model,
                tokens.as_ptr(),
                tokens.len(),
                flag,
                bytes.as_mut_ptr(),
                bytes.len(),
                &mut count,
            ),
            2 => sm_chat_apply(
                model,
                messages.as_ptr(),
                stride,
                messages.len(),
                flag,
                bytes.as_mut_ptr(),
                bytes.len(),
                &mut count,
            ),
            3 => sm_chat_tokenize(
                model,
                messages.as_ptr(),
                stride,
                messages.len(),
                flag,
                flag,
                ids.as_mut_ptr(),
                ids.len(),
                &mut count,
            ),
            4 => sm_token_piece(model, choices.size() as u32, bytes.as_mut_ptr(), bytes.len(), &mut count),
            _ => {
                let (sampler, mut token) = (choices.pick(&world.samplers), 0);
                let logits: Vec<_> = (0..[0, 64, 256][choices.below(3)]).map(|_| choices.float()).collect();
                checked(sm_sampler_accept(sampler, choices.size() as u32));
                sm_sampler_sample(sampler, logits.as_ptr(), logits.len(), &mut token)
            }
        }
    };
    checked(status);
}

fuzz_target!(|bytes: &[u8]| {
    let (mut choices, mut world) = (Choices(bytes), World::default());
    // SAFETY: the world's objects are those that were made and not freed yet, and this is their only user.
    unsafe {
        for _ in 0..CALLS {
            if choices.0.is_empty() {
                break;
            }
            match choices.below(8) {
                0 | 1 => make(&mut choices, &mut world),
                2 => free(&mut choices, &mut world),
                3..=5 => use_context(&mut choices, &world),
                _ => use_text(&mut choices, &world),
            }
        }
        for context in world.contexts {
            assert_eq!(sm_context_free(context), SM_STATUS_OK);
        }
        for sampler in world.samplers {
            assert_eq!(sm_sampler_free(sampler), SM_STATUS_OK);
        }
        for model in world.models {
            assert_eq!(sm_model_free(model), SM_STATUS_OK);
        }
        for team in world.teams {
            assert_eq!(sm_team_free(team), SM_STATUS_OK);
        }
    }
});
