//! Teams
//! =====
//! Threads and working memory for kernels that are called by themselves. Without one, a kernel runs on the
//! calling thread and takes working memory for the call. The results are the same to the bit.

use super::boundary;
use super::handle::{Entered, Exclusive, borrow, clear_out, free_exclusive, give};
use super::status::{Failure, sm_status};
use crate::ops::gemm::Workspace;
use crate::threads::Team;

/// Threads and working memory. For one call at a time: another one meanwhile gets `SM_STATUS_BUSY`.
pub struct sm_team {
    inner: Exclusive<Inner>,
}

pub(super) struct Inner {
    pub team: Team,
    pub workspace: Workspace,
}

/// Makes a team of `threads` threads, the calling one included: 1 to 1024. The others sleep between calls. Memory
/// is taken when a call first wants it, and kept. Free it with `sm_team_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_team_create(threads: usize, team: *mut *mut sm_team) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        clear_out(team, "team")?;
        let inner = Inner { team: Team::new(threads)?, workspace: Workspace::default() };
        give(team, sm_team { inner: Exclusive::new("the team", inner) });
        Ok(())
    })
}

/// Frees a team; NULL is fine. `SM_STATUS_BUSY` while a call uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_team_free(team: *mut sm_team) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { free_exclusive(team, |team| &team.inner) })
}

/// The team for the length of a call; `None` for NULL.
///
/// # Safety
/// `team` is NULL or alive.
pub(super) unsafe fn enter<'a>(team: *mut sm_team) -> Result<Option<Entered<'a, Inner>>, Failure> {
    if team.is_null() {
        return Ok(None);
    }
    // SAFETY: the function's contract.
    unsafe { borrow(team, "team") }?.inner.enter().map(Some)
}
