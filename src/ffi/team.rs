//! Teams
//! =====
//! Threads that contexts can share, and that the functions from "Kernels" on can use. A team runs one pass or one kernel
//! at a time. Results have the same bits on any team, and without one.

use std::sync::Arc;

use super::boundary;
use super::handle::{Entered, Exclusive, clear_out, free_exclusive, give};
use super::status::{Failure, SM_STATUS_BUSY, sm_status};
use crate::ops::AttentionWorkspace;
use crate::ops::gemm::Workspace;
use crate::threads::Team;

/// Threads, and the working memory of the kernels that use them. Without a team, a kernel runs on the calling thread and
/// takes working memory for the call.
///
/// Passes of the contexts that hold the team, and kernel calls, run one after another in the order in which they come. A
/// kernel call that comes while another is using the team gets `SM_STATUS_BUSY`, since there is one working memory.
pub struct sm_team {
    /// Outside of the exclusive objects: contexts take it while a kernel's call is inside.
    team: Arc<Team>,
    workspace: Exclusive<Workspace>,
    /// Entered after the other one, so that no call finds it busy.
    attention: Exclusive<AttentionWorkspace>,
}

/// The team and its working memory, for a kernel's call.
pub(super) struct Inside<'a> {
    pub team: &'a Team,
    pub workspace: Entered<'a, Workspace>,
    pub attention: Entered<'a, AttentionWorkspace>,
}

/// Makes a team of `threads` threads, 1 to 1024, in `*team`, which you free with `sm_team_free`. The thread that uses the
/// team counts as one of them; the others sleep between calls. Working memory is reserved when a kernel first needs it,
/// and kept. `SM_STATUS_NO_THREADS` if the system refuses a thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_team_create(threads: usize, team: *mut *mut sm_team) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        clear_out(team, "team")?;
        let made = Arc::new(Team::new(threads)?);
        let workspace = Exclusive::at_home("the team", Workspace::default(), made.home());
        let attention = Exclusive::at_home("the team", AttentionWorkspace::default(), made.home());
        give(team, sm_team { team: made, workspace, attention });
        Ok(())
    })
}

/// Frees a team; NULL is fine. While a context, a server, an embedder or a trainer holds it or a kernel's call uses it, the status is
/// `SM_STATUS_BUSY` and the team is not freed. No other call may be given the team at the same moment, `sm_context_create` included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_team_free(team: *mut sm_team) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let holds = |team: &sm_team| team.workspace.check_home().is_ok() && Arc::strong_count(&team.team) > 1;
        if team.as_ref().is_some_and(holds) {
            return Err(Failure::new(
                SM_STATUS_BUSY,
                "busy: a context holds the team, or an embedder or a trainer; free it first",
            ));
        }
        free_exclusive(team, |team| &team.workspace)
    })
}

/// The team for the length of a kernel's call; `None` for NULL.
///
/// # Safety
/// `team` is NULL or alive.
pub(super) unsafe fn enter<'a>(team: *const sm_team) -> Result<Option<Inside<'a>>, Failure> {
    // SAFETY: the function's contract.
    let Some(sm_team { team, workspace, attention }) = (unsafe { team.as_ref() }) else { return Ok(None) };
    // In this order: the first one keeps other calls out.
    Ok(Some(Inside { team, workspace: workspace.enter()?, attention: attention.enter()? }))
}

/// A context's share in the team, while a kernel is inside or not; `None` for NULL.
///
/// # Safety
/// `team` is NULL or alive.
pub(super) unsafe fn share(team: *const sm_team) -> Result<Option<Arc<Team>>, Failure> {
    // SAFETY: the function's contract.
    let Some(team) = (unsafe { team.as_ref() }) else { return Ok(None) };
    team.workspace.check_home()?;
    Ok(Some(team.team.clone()))
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::mem::offset_of;
    use std::ptr;

    use super::*;
    use crate::ffi::context::{
        SM_LOGITS_LAST, sm_context, sm_context_create, sm_context_free, sm_context_memory, sm_context_params,
        sm_context_params_init, sm_decode, sm_memory_estimate,
    };
    use crate::ffi::model::{sm_model, sm_model_free};
    use crate::ffi::random::sm_model_create_random;
    use crate::ffi::status::{SM_STATUS_OK, sm_last_error};

    const THREADS: usize = 3;

    fn team() -> *mut sm_team {
        let mut team = ptr::null_mut();
        // SAFETY: a variable for the handle.
        assert_eq!(unsafe { sm_team_create(THREADS, &mut team) }, SM_STATUS_OK);
        team
    }

    fn model() -> *mut sm_model {
        let mut model = ptr::null_mut();
        // SAFETY: the defaults, and a variable for the handle.
        assert_eq!(unsafe { sm_model_create_random(ptr::null(), ptr::null(), &mut model) }, SM_STATUS_OK);
        model
    }

    fn params(n_threads: usize, team: *mut sm_team) -> sm_context_params {
        let mut params = std::mem::MaybeUninit::<sm_context_params>::uninit();
        // SAFETY: room for the structure, which the call fills.
        let defaults = unsafe {
            assert_eq!(sm_context_params_init(params.as_mut_ptr(), size_of_val(&params)), SM_STATUS_OK);
            params.assume_init()
        };
        assert!(defaults.team.is_null());
        sm_context_params { n_threads, team, ..defaults }
    }

    fn create(model: *mut sm_model, params: &sm_context_params) -> *mut sm_context {
        let mut context = ptr::null_mut();
        // SAFETY: a live model and team, and a variable for the handle.
        assert_eq!(unsafe { sm_context_create(model, params, &mut context) }, SM_STATUS_OK);
        context
    }

    fn last_error() -> String {
        // SAFETY: never NULL; copied before anything else fails.
        unsafe { CStr::from_ptr(sm_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_team_is_freed_after_its_contexts_and_between_kernels() {
        let (model, team) = (model(), team());
        // SAFETY: live handles, each freed once and not used after that.
        unsafe {
            let inside = enter(team).unwrap().unwrap();
            assert_eq!(enter(team).err().unwrap().status, SM_STATUS_BUSY, "a second kernel");
            // A context doesn't care.
            let context = create(model, &params(0, team));
            assert_eq!(sm_decode(context, [1].as_ptr(), 1, SM_LOGITS_LAST), SM_STATUS_OK);
            assert_eq!(sm_team_free(team), SM_STATUS_BUSY);
            assert!(last_error().contains("a context holds the team"), "{}", last_error());
            assert_eq!(sm_context_free(context), SM_STATUS_OK);
            assert_eq!(sm_team_free(team), SM_STATUS_BUSY);
            assert!(last_error().contains("the team is in use by another call"), "{}", last_error());
            drop(inside);
            assert_eq!(sm_team_free(team), SM_STATUS_OK);
            assert_eq!(sm_model_free(model), SM_STATUS_OK);
        }
    }

    #[test]
    fn a_context_that_is_not_made_holds_nothing() {
        let (model, team) = (model(), team());
        let mut context = ptr::null_mut();
        // SAFETY: live handles, each freed once and not used after that.
        unsafe {
            let params = sm_context_params { n_ctx: usize::MAX, ..params(1, team) };
            assert_ne!(sm_context_create(model, &params, &mut context), SM_STATUS_OK);
            assert_eq!(sm_team_free(team), SM_STATUS_OK);
            assert_eq!(sm_model_free(model), SM_STATUS_OK);
        }
    }

    #[test]
    fn memory_is_counted_for_the_threads_of_the_team() {
        let (model, team) = (model(), team());
        let bytes = |params: &sm_context_params| {
            let mut estimate = sm_memory_estimate { cache_bytes: 0, arena_bytes: 0, total_bytes: 0 };
            // SAFETY: a live model and team, and room for the estimate.
            let status = unsafe { sm_context_memory(model, params, &mut estimate, size_of_val(&estimate)) };
            assert_eq!(status, SM_STATUS_OK);
            estimate.total_bytes
        };
        let (own, fewer) = (bytes(&params(THREADS, ptr::null_mut())), bytes(&params(1, ptr::null_mut())));
        assert!(own > fewer);
        assert_eq!(bytes(&params(0, team)), own);
        // A caller whose structure ends before the team has none, whatever stands behind.
        let older = sm_context_params { struct_size: offset_of!(sm_context_params, team), ..params(1, team) };
        assert_eq!(bytes(&older), fewer);
        // SAFETY: live handles, freed once.
        unsafe {
            assert_eq!(sm_team_free(team), SM_STATUS_OK);
            assert_eq!(sm_model_free(model), SM_STATUS_OK);
        }
    }
}
