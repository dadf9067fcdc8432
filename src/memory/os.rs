//! The operating system's part of memory: mappings, huge pages, sizes of memory and caches.
//! Linux has all of it; elsewhere buffers come from the allocator, and unknown sizes are `None`.

use std::sync::OnceLock;

#[cfg(target_os = "linux")]
pub(crate) use linux::Mapping;
#[cfg(target_os = "linux")]
pub(super) use linux::{CAN_MAP, grow_stack};
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::Mapping;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::{CAN_MAP, grow_stack};

/// Sizes in bytes of the data caches of one core; it shares the last level with other cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheSizes {
    /// First level, data.
    pub l1d: usize,
    /// Second level.
    pub l2: usize,
    /// Third level, including the parts of other cores; the second level's size where there is no third.
    pub l3: usize,
}

impl CacheSizes {
    /// Assumed where the sizes are unknown: those of the smallest cores still in use, since blocks that are too small
    /// cost less than blocks that don't fit.
    pub const FALLBACK: CacheSizes = CacheSizes { l1d: 32 << 10, l2: 256 << 10, l3: 2 << 20 };

    /// The levels found, with unknown ones filled in so that each is at least as large as the one before it.
    fn from_levels(levels: [Option<usize>; 3]) -> Self {
        let l1d = levels[0].unwrap_or(Self::FALLBACK.l1d);
        let l2 = levels[1].unwrap_or(Self::FALLBACK.l2).max(l1d);
        let known = levels[0].is_some() || levels[1].is_some();
        let l3 = levels[2].unwrap_or(if known { l2 } else { Self::FALLBACK.l3 }).max(l2);
        Self { l1d, l2, l3 }
    }
}

/// Cache sizes of the first CPU: from the operating system, else from the processor itself, else
/// [`CacheSizes::FALLBACK`]. They are read at the first call.
pub fn cache_sizes() -> CacheSizes {
    static SIZES: OnceLock<CacheSizes> = OnceLock::new();
    *SIZES.get_or_init(|| {
        let sources = [os_cache_levels(), cpu_cache_levels()];
        let found = sources.into_iter().find(|levels| levels[0].is_some());
        CacheSizes::from_levels(found.unwrap_or([None; 3]))
    })
}

/// Bytes of memory of the machine, or of the process's container where that limit is lower. `None` where they are
/// unknown.
pub fn total_memory() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return linux::total_memory();
    #[cfg(not(target_os = "linux"))]
    None
}

/// An estimate of the bytes that can still be allocated without swapping, within a container's limit. `None` where they
/// are unknown.
pub fn available_memory() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return linux::available_memory();
    #[cfg(not(target_os = "linux"))]
    None
}

/// Returns freed memory that the allocator keeps to the system, as after a load with large temporary tables.
pub fn give_back_freed() {
    // SAFETY: `malloc_trim` has no preconditions and is safe to call from any thread (MT-Safe in its manual).
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

fn os_cache_levels() -> [Option<usize>; 3] {
    #[cfg(target_os = "linux")]
    return linux::cache_levels();
    #[cfg(not(target_os = "linux"))]
    [None; 3]
}

/// CPUID's deterministic cache parameters: leaf 4 (Intel) or 0x8000001D (AMD), same layout.
#[cfg(target_arch = "x86_64")]
fn cpu_cache_levels() -> [Option<usize>; 3] {
    use crate::cpu::{cpuid, cpuid_count};
    let leaf = match cpuid(0).ebx {
        0x6874_7541 => 0x8000_001d, // "Auth" of AuthenticAMD
        _ => 4,
    };
    let highest = if leaf == 4 { cpuid(0).eax } else { cpuid(0x8000_0000).eax };
    let mut levels = [None; 3];
    if highest < leaf {
        return levels;
    }
    for index in 0..16 {
        let entry = cpuid_count(leaf, index);
        let Some((kind, level, size)) = decode_cache(entry.eax, entry.ebx, entry.ecx) else { break };
        if kind != INSTRUCTIONS && (1..=3).contains(&level) {
            levels[level - 1] = Some(size);
        }
    }
    levels
}

#[cfg(target_arch = "x86_64")]
const INSTRUCTIONS: u32 = 2;

/// Kind (1 data, 2 instructions, 3 both), level and bytes of an entry; `None` past the last.
#[cfg(target_arch = "x86_64")]
fn decode_cache(eax: u32, ebx: u32, ecx: u32) -> Option<(u32, usize, usize)> {
    let (kind, level) = (eax & 0x1f, (eax >> 5 & 7) as usize);
    let plus_one = |shift: u32, bits: u32| (ebx >> shift & ((1 << bits) - 1)) as usize + 1;
    let (ways, partitions, line, sets) =
        (plus_one(22, 10), plus_one(12, 10), plus_one(0, 12), ecx as usize + 1);
    (kind != 0).then_some((kind, level, ways * partitions * line * sets))
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_cache_levels() -> [Option<usize>; 3] {
    [None; 3]
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::read_to_string;
    use std::mem::ManuallyDrop;
    use std::ptr::{NonNull, null_mut};

    use crate::memory::Pages;

    pub const CAN_MAP: bool = true;

    /// Of x86-64 and of 4 KiB-paged aarch64; elsewhere merely a generous alignment.
    const HUGE_PAGE: usize = 2 << 20;

    /// Bytes to map for one page: the system rounds them up to its own.
    const PAGE: usize = 4096;

    /// The largest page that a Linux is built with: every length that is a multiple is whole pages.
    const LARGEST_PAGE: usize = 64 << 10;

    /// `bytes`, at least 1, as whole units, if an address space holds them.
    fn whole(bytes: usize, unit: usize) -> Option<usize> {
        bytes.max(1).checked_next_multiple_of(unit).filter(|&len| len <= isize::MAX as usize)
    }

    /// Private memory of the system's, zero at first, readable and writable. Its owner says who uses which bytes.
    #[derive(Debug)]
    pub struct Mapping {
        first: NonNull<u8>,
        len: usize,
    }

    // SAFETY: a mapping isn't tied to a thread, and this type touches no byte of it.
    unsafe impl Send for Mapping {}
    // SAFETY: as for Send.
    unsafe impl Sync for Mapping {}

    impl Mapping {
        /// Whole huge pages for `bytes`, at the boundary of one; `None` if the system refuses.
        pub fn zeroed(bytes: usize, pages: Pages) -> Option<Self> {
            let len = whole(bytes, HUGE_PAGE)?;
            let reserved = Self::new(len.checked_add(HUGE_PAGE)?, 0)?;
            let head = reserved.first.as_ptr().align_offset(HUGE_PAGE);
            let mapping = reserved.narrowed(head, len)?;
            // Advice may be refused.
            mapping.advise(match pages {
                Pages::Huge => libc::MADV_HUGEPAGE,
                Pages::Small => libc::MADV_NOHUGEPAGE,
            });
            Some(mapping)
        }

        /// Address space, and memory that the system has promised, to be given back; `None` if the system refuses.
        pub fn ballast(bytes: usize) -> Option<Self> {
            // Writable, so that it counts where the system limits what it promises, and never touched: it costs no memory.
            Self::new(whole(bytes, LARGEST_PAGE)?, libc::MAP_NORESERVE)
        }

        /// A page that a forked child finds empty; `None` if the system refuses: it is out of memory, or older than
        /// Linux 4.14.
        pub fn wiped_by_forks() -> Option<Self> {
            // Miri knows no such advice.
            let page = if cfg!(miri) { None } else { Self::new(PAGE, 0) };
            page.filter(|page| page.advise(libc::MADV_WIPEONFORK))
        }

        fn new(len: usize, more_flags: libc::c_int) -> Option<Self> {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | more_flags;
            // SAFETY: the kernel chooses the address of an anonymous mapping, so it overlaps no memory in use.
            let first =
                unsafe { libc::mmap(null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
            if first == libc::MAP_FAILED {
                None
            } else {
                Some(Self { first: NonNull::new(first.cast())?, len })
            }
        }

        /// `len` bytes from byte `begin` on, both whole pages; the rest is freed.
        fn narrowed(self, begin: usize, len: usize) -> Option<Self> {
            let whole = ManuallyDrop::new(self);
            // Parts of a mapping that are whole pages are mappings of their own; those of the rest end here.
            let part = |begin: usize, len: usize| {
                let first = NonNull::new(whole.first.as_ptr().wrapping_add(begin))?;
                if len > 0 { Some(Self { first, len }) } else { None }
            };
            drop((part(0, begin), part(begin + len, whole.len - begin - len)));
            part(begin, len)
        }

        /// Advice about all of it, none of which changes contents here; whether the system took it.
        fn advise(&self, advice: libc::c_int) -> bool {
            // SAFETY: the mapping is this value's, of this length.
            unsafe { libc::madvise(self.first.as_ptr().cast(), self.len, advice) == 0 }
        }

        /// The first byte.
        pub fn first(&self) -> NonNull<u8> {
            self.first
        }

        /// Bytes, whole pages.
        pub fn len(&self) -> usize {
            self.len
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: the mapping is this value's, of this length, and its owner lets nobody use it any more.
            unsafe { libc::munmap(self.first.as_ptr().cast(), self.len) };
        }
    }

    /// Stack that work of the library may need.
    const STACK: usize = 512 << 10;

    /// Lets the stack of the process's first thread grow now to what work may need; other threads' stacks are there as a
    /// whole. The system lets it grow at a page fault, and kills the process if a limit is in the way. False if it would.
    pub fn grow_stack() -> bool {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure is complete and outlives the call; the others have no arguments.
        let (is_first, known) = unsafe {
            (libc::gettid() == libc::getpid(), libc::getrlimit(libc::RLIMIT_STACK, &mut limit) == 0)
        };
        // Most of a small stack may be in use already.
        if !is_first || !known || limit.rlim_cur < 4 * STACK as libc::rlim_t {
            return true;
        }
        let room = Mapping::ballast(2 * STACK);
        let fits = room.is_some();
        drop(room);
        if fits {
            touch_stack();
        }
        fits
    }

    /// Writes to every page of so much stack.
    #[inline(never)]
    fn touch_stack() {
        let area = [0u8; STACK];
        std::hint::black_box(&area);
    }

    pub fn cache_levels() -> [Option<usize>; 3] {
        let mut levels = [None; 3];
        for index in 0..8 {
            let field = |name: &str| {
                let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}");
                read_to_string(path).ok()
            };
            let (Some(level), Some(kind), Some(size)) = (field("level"), field("type"), field("size")) else {
                continue;
            };
            let level = level.trim().parse().unwrap_or(0);
            if kind.trim() != "Instruction" && (1..=3).contains(&level) {
                levels[level - 1] = parse_size(size.trim());
            }
        }
        levels
    }

    /// "48K", "2M" or plain bytes.
    pub(super) fn parse_size(text: &str) -> Option<usize> {
        let (digits, unit) = match text.strip_suffix(['K', 'M', 'G']) {
            Some(digits) => (digits, 10 * (1 + "KMG".find(&text[digits.len()..])?)),
            None => (text, 0),
        };
        digits.parse::<usize>().ok()?.checked_mul(1 << unit).filter(|&size| size > 0)
    }

    pub fn total_memory() -> Option<u64> {
        let machine = meminfo("MemTotal:");
        [machine, cgroup_limit()].into_iter().flatten().min()
    }

    pub fn available_memory() -> Option<u64> {
        let within_limit = cgroup_limit().map(|limit| limit.saturating_sub(cgroup_usage().unwrap_or(0)));
        [meminfo("MemAvailable:"), within_limit].into_iter().flatten().min()
    }

    fn meminfo(field: &str) -> Option<u64> {
        let text = read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    }

    /// The memory limit of the control group that the process sees as its root, as in a container; from version 2, else
    /// 1. "max" and version 1's near-infinite number mean no limit.
    fn cgroup_limit() -> Option<u64> {
        let limit = read_number("/sys/fs/cgroup/memory.max")
            .or_else(|| read_number("/sys/fs/cgroup/memory/memory.limit_in_bytes"))?;
        (limit < 1 << 60).then_some(limit)
    }

    fn cgroup_usage() -> Option<u64> {
        read_number("/sys/fs/cgroup/memory.current")
            .or_else(|| read_number("/sys/fs/cgroup/memory/memory.usage_in_bytes"))
    }

    fn read_number(path: &str) -> Option<u64> {
        read_to_string(path).ok()?.trim().parse().ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::ptr::NonNull;

    use crate::memory::Pages;

    pub const CAN_MAP: bool = false;

    /// Never made, since nothing is ever mapped.
    #[derive(Debug)]
    pub enum Mapping {}

    impl Mapping {
        pub fn zeroed(_bytes: usize, _pages: Pages) -> Option<Self> {
            None
        }

        pub fn ballast(_bytes: usize) -> Option<Self> {
            None
        }

        pub fn wiped_by_forks() -> Option<Self> {
            None
        }

        pub fn first(&self) -> NonNull<u8> {
            match *self {}
        }

        pub fn len(&self) -> usize {
            match *self {}
        }
    }

    /// Unknown: as if it were there.
    pub fn grow_stack() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_grow_with_their_level() {
        let sizes = cache_sizes();
        assert!(sizes.l1d >= 8 << 10, "{sizes:?}");
        assert!(sizes.l1d <= sizes.l2 && sizes.l2 <= sizes.l3, "{sizes:?}");
    }

    #[test]
    fn unknown_levels_follow_from_known_ones() {
        let sizes = CacheSizes::from_levels;
        assert_eq!(sizes([None; 3]), CacheSizes::FALLBACK);
        let no_third = sizes([Some(64 << 10), Some(4 << 20), None]);
        assert_eq!(no_third.l3, 4 << 20);
        assert_eq!(sizes([Some(512 << 10), None, None]).l2, 512 << 10);
    }

    #[test]
    fn each_source_is_silent_or_plausible() {
        // They need not agree: a hypervisor or an emulator may report something else.
        for levels in [os_cache_levels(), cpu_cache_levels()] {
            let known: Vec<usize> = levels.into_iter().flatten().collect();
            assert!(
                known.is_sorted() && known.iter().all(|size| (4 << 10..4 << 30).contains(size)),
                "{known:?}"
            );
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_processor_entry_is_decoded() {
        // 12 ways of 64 sets of 64-byte lines, level 1, data: the 48 KiB of recent cores.
        assert_eq!(decode_cache(0x21, 11 << 22 | 63, 63), Some((1, 1, 48 << 10)));
        // 16 ways of 2048 sets, level 2, unified: 2 MiB.
        assert_eq!(decode_cache(0x143, 15 << 22 | 63, 2047), Some((3, 2, 2 << 20)));
        assert_eq!(decode_cache(0, 11 << 22 | 63, 63), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn sizes_with_units() {
        assert_eq!(linux::parse_size("48K"), Some(48 << 10));
        assert_eq!(linux::parse_size("2M"), Some(2 << 20));
        assert_eq!(linux::parse_size("123"), Some(123));
        for bad in ["", "K", "0", "-1K", "12Q", "99999999999999999999G", "20000000000000000G"] {
            assert_eq!(linux::parse_size(bad), None, "{bad}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_known_and_plausible() {
        let (total, available) = (total_memory().unwrap(), available_memory().unwrap());
        assert!(total >= 64 << 20 && available <= total, "{available} of {total}");
    }
}
