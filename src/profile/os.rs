//! A thread's counters from the operating system: `perf_event_open` on Linux, `getrusage` and `/proc` where that is
//! refused. All of `profile` that depends on the operating system stands here; elsewhere nothing is counted.

#[cfg(target_os = "linux")]
pub(super) use linux::{ThreadCounters, why_missing};
#[cfg(not(target_os = "linux"))]
pub(super) use nothing::{ThreadCounters, why_missing};

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::mem::MaybeUninit;
    use std::ops::Range;
    use std::sync::atomic::{
        AtomicI32, AtomicU32, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    };

    use super::super::counters::{COUNTERS, Counter, Counts};

    /// `perf_event_attr` of linux/perf_event.h, as its first version was; later fields are 0 then.
    #[repr(C)]
    struct EventAttributes {
        kind: u32,
        size: u32,
        config: u64,
        sample_period: u64,
        sample_type: u64,
        read_format: u64,
        flags: u64,
        wakeup_events: u32,
        breakpoint_kind: u32,
        config1: u64,
    }

    const _: () = assert!(size_of::<EventAttributes>() == 64);

    const KIND_HARDWARE: u32 = 0;
    const KIND_SOFTWARE: u32 = 1;
    /// The kernel's own work isn't counted.
    const EXCLUDE_KERNEL: u64 = 1 << 5;
    const EXCLUDE_HYPERVISOR: u64 = 1 << 6;
    /// A read gives the time enabled, the time that the events were on the processor, and all values of the group.
    const READ_FORMAT: u64 = 1 | 2 | 8;
    const CLOSE_ON_EXEC: libc::c_ulong = 8;
    const ENABLE: libc::c_ulong = 0x2400;
    const DISABLE: libc::c_ulong = 0x2401;
    const WHOLE_GROUP: libc::c_int = 1;

    /// Counters that are read at once: the system's, whose events are never out of counters, and the processor's.
    const GROUPS: [Range<usize>; 2] = [0..4, 4..COUNTERS];
    /// Values of the largest group, and the three numbers that stand before them.
    const MOST_READ: usize = 3 + 6;

    /// The kernel's numbers of an event.
    fn event(counter: Counter) -> (u32, u64) {
        match counter {
            Counter::MinorFaults => (KIND_SOFTWARE, 5),
            Counter::MajorFaults => (KIND_SOFTWARE, 6),
            Counter::ContextSwitches => (KIND_SOFTWARE, 3),
            Counter::Migrations => (KIND_SOFTWARE, 4),
            Counter::Cycles => (KIND_HARDWARE, 0),
            Counter::Instructions => (KIND_HARDWARE, 1),
            Counter::CacheReferences => (KIND_HARDWARE, 2),
            Counter::CacheMisses => (KIND_HARDWARE, 3),
            Counter::Branches => (KIND_HARDWARE, 4),
            Counter::BranchMisses => (KIND_HARDWARE, 5),
        }
    }

    /// How the process fares with each counter: an error's number, or one of these. The worst of its threads counts.
    static STATES: [AtomicI32; COUNTERS] = [const { AtomicI32::new(NOT_ASKED) }; COUNTERS];
    const NOT_ASKED: i32 = 0;
    const COUNTED: i32 = -1;
    const FROM_USAGE: i32 = -2;

    /// Why a counter isn't known; none where it is.
    pub fn why_missing(counter: Counter) -> Option<String> {
        match STATES[counter.index()].load(Relaxed) {
            COUNTED | FROM_USAGE => None,
            state => Some(reason(state, &std::fs::read_to_string(PARANOID).unwrap_or_default())),
        }
    }

    const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

    /// The reason for an error of `perf_event_open`, with what [`PARANOID`] holds.
    fn reason(errno: i32, paranoid: &str) -> String {
        match errno {
            NOT_ASKED => "nothing was counted yet".to_owned(),
            libc::EACCES | libc::EPERM => match paranoid.trim() {
                "" => "the system refuses perf_event_open".to_owned(),
                level => format!(
                    "the system refuses perf_event_open: perf_event_paranoid is {level}, or a container's filter"
                ),
            },
            libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP => {
                "the processor shows no such counter, as in most virtual machines".to_owned()
            }
            libc::ENOSYS => "this kernel has no perf_event_open".to_owned(),
            libc::EMFILE | libc::ENFILE => "no file descriptors to spare".to_owned(),
            libc::EINVAL | libc::EBUSY => "the processor has too few counters, or others use them".to_owned(),
            other => format!("perf_event_open: {}", std::io::Error::from_raw_os_error(other)),
        }
    }

    /// File descriptors in use by all threads.
    static OPEN: AtomicUsize = AtomicUsize::new(0);

    /// A quarter of the process's descriptors: the rest is the program's.
    fn most_open() -> usize {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a live structure of the type that the call writes.
        let asked = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
        if asked == 0 { usize::try_from(limit.rlim_cur / 4).unwrap_or(usize::MAX) } else { 0 }
    }

    /// The counters of one thread; all zeroes is none. Opened and closed under the registry's lock, closed by the
    /// thread alone, which so may read them without the lock.
    pub struct ThreadCounters {
        /// The thread's number in the system; 0 for none.
        thread: AtomicI32,
        /// A bit for each counter that is open; set when all are.
        open: AtomicU32,
        /// Their file descriptors.
        descriptors: [AtomicI32; COUNTERS],
    }

    impl ThreadCounters {
        /// Makes these the calling thread's.
        pub fn attach(&self) {
            self.thread.store(this_thread(), Relaxed);
        }

        /// Opens the counters where they aren't, of a thread that lives, and lets them count.
        pub fn open(&self) {
            if self.open.load(Acquire) != 0 {
                return self.control(ENABLE);
            }
            let mut open = 0;
            for group in GROUPS {
                let mut leader = -1;
                for counter in &Counter::ALL[group] {
                    let state = match self.open_one(*counter, leader) {
                        Ok(descriptor) => {
                            leader = if leader < 0 { descriptor } else { leader };
                            self.descriptors[counter.index()].store(descriptor, Relaxed);
                            open |= 1 << counter.index();
                            COUNTED
                        }
                        // `getrusage` has these three, but no migrations.
                        Err(_) if counter.index() < Counter::Migrations.index() && leader < 0 => FROM_USAGE,
                        Err(errno) => errno,
                    };
                    note(*counter, state);
                }
            }
            self.open.store(open, Release);
        }

        fn open_one(&self, counter: Counter, leader: i32) -> Result<i32, i32> {
            if OPEN.load(Relaxed) >= most_open() {
                return Err(libc::EMFILE);
            }
            let (kind, config) = event(counter);
            // A fault or a switch happens in the kernel. The processor's counters leave the kernel out, which fewer
            // systems refuse.
            let user_only = if kind == KIND_HARDWARE { EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR } else { 0 };
            let attributes = EventAttributes {
                kind,
                size: size_of::<EventAttributes>() as u32,
                config,
                sample_period: 0,
                sample_type: 0,
                read_format: READ_FORMAT,
                flags: user_only,
                wakeup_events: 0,
                breakpoint_kind: 0,
                config1: 0,
            };
            let (thread, any_core) = (self.thread.load(Relaxed), -1);
            let address = std::ptr::from_ref(&attributes);
            // SAFETY: the kernel reads `size` bytes at the address of a live structure of that size, and writes none.
            let descriptor = unsafe {
                libc::syscall(libc::SYS_perf_event_open, address, thread, any_core, leader, CLOSE_ON_EXEC)
            };
            match i32::try_from(descriptor) {
                Ok(descriptor) if descriptor >= 0 => {
                    OPEN.fetch_add(1, Relaxed);
                    Ok(descriptor)
                }
                _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)),
            }
        }

        /// Stops counting until the next [`ThreadCounters::open`].
        pub fn pause(&self) {
            self.control(DISABLE);
        }

        fn control(&self, request: libc::c_ulong) {
            let open = self.open.load(Acquire);
            for leader in GROUPS.into_iter().filter_map(|group| self.leader(open, group)) {
                // SAFETY: the descriptor is open, under the lock that closing takes; the request takes a number.
                unsafe { libc::ioctl(leader, request as _, WHOLE_GROUP) };
            }
        }

        /// Gives the descriptors back; by the thread itself, which ends.
        pub fn close(&self) {
            let open = self.open.swap(0, Release);
            for index in (0..COUNTERS).filter(|index| open >> index & 1 == 1) {
                // SAFETY: the descriptor was opened here and is closed once: the swap took its bit away.
                unsafe { libc::close(self.descriptors[index].load(Relaxed)) };
                OPEN.fetch_sub(1, Relaxed);
            }
            self.thread.store(0, Relaxed);
        }

        /// The counters so far. `own`: the thread is the calling one; other threads hold the registry's lock.
        /// Allocates nothing.
        pub fn read(&self, own: bool) -> Counts {
            let open = self.open.load(Acquire);
            let mut counts = Counts::default();
            for group in GROUPS {
                self.read_group(open, group, &mut counts);
            }
            if open & 1 == 0 {
                let thread = self.thread.load(Relaxed);
                if own {
                    read_usage(&mut counts)
                } else {
                    read_files(thread, &mut counts)
                };
            }
            counts
        }

        /// The descriptor that stands for a group.
        fn leader(&self, open: u32, mut group: Range<usize>) -> Option<i32> {
            let first = group.find(|index| open >> index & 1 == 1)?;
            Some(self.descriptors[first].load(Relaxed))
        }

        fn read_group(&self, open: u32, group: Range<usize>, counts: &mut Counts) {
            let Some(leader) = self.leader(open, group.clone()) else { return };
            let mut values = [0u64; MOST_READ];
            let bytes = size_of_val(&values);
            // SAFETY: the buffer is live and has that many bytes; the descriptor is open: this is its thread, which
            // alone closes it, or the caller holds the lock that closing takes.
            let read = unsafe { libc::read(leader, values.as_mut_ptr().cast(), bytes) };
            let [members, enabled, running, values @ ..] = values;
            let expected = 8 * (3 + members.min(values.len() as u64)) as isize;
            if read != expected {
                return;
            }
            // A thread that hasn't run since its counters were opened has 0 for both.
            if running == 0 && enabled > 0 {
                Counter::ALL[group].iter().for_each(|counter| note(*counter, libc::EBUSY));
                return;
            }
            // Where there are more events than counters, the kernel lets them take turns.
            let scaled = |value: u64| match running < enabled {
                true => (u128::from(value) * u128::from(enabled) / u128::from(running)) as u64,
                false => value,
            };
            let members = Counter::ALL[group].iter().filter(|counter| open >> counter.index() & 1 == 1);
            members.zip(values).for_each(|(counter, value)| counts.set(*counter, scaled(value)));
        }
    }

    /// Remembers how a counter fares. A refusal stays, so that a thread without counters isn't passed over.
    fn note(counter: Counter, state: i32) {
        let cell = &STATES[counter.index()];
        let known = cell.load(Relaxed);
        if known == NOT_ASKED || known == COUNTED || state > 0 {
            cell.store(state, Relaxed);
        }
    }

    /// The calling thread's number in the system.
    fn this_thread() -> libc::pid_t {
        // SAFETY: the call has no arguments and can't fail.
        unsafe { libc::gettid() }
    }

    /// Counters that the system keeps of every thread: the calling one's.
    fn read_usage(counts: &mut Counts) {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: `usage` is a live structure of the type that the call writes, and of integers, for which zeroes are a
        // valid value.
        let usage = unsafe {
            if libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) != 0 {
                return;
            }
            usage.assume_init()
        };
        counts.set(Counter::MinorFaults, usage.ru_minflt as u64);
        counts.set(Counter::MajorFaults, usage.ru_majflt as u64);
        counts.set(Counter::ContextSwitches, (usage.ru_nvcsw + usage.ru_nivcsw) as u64);
        counts.mark_usage();
    }

    /// The same of another thread, from its files.
    fn read_files(thread: i32, counts: &mut Counts) {
        let mut buffer = [0u8; 4096];
        let Some((minor, major)) = read_file(thread, "stat", &mut buffer).and_then(faults) else { return };
        let Some(switches) = read_file(thread, "status", &mut buffer).and_then(switches) else { return };
        counts.set(Counter::MinorFaults, minor);
        counts.set(Counter::MajorFaults, major);
        counts.set(Counter::ContextSwitches, switches);
        counts.mark_usage();
    }

    /// A thread's file, read without an allocation.
    fn read_file<'a>(thread: i32, name: &str, buffer: &'a mut [u8]) -> Option<&'a str> {
        let mut path = [0u8; 64];
        let mut rest = &mut path[..];
        write!(rest, "/proc/self/task/{thread}/{name}").ok()?;
        let length = 64 - rest.len();
        let mut file = File::open(std::str::from_utf8(&path[..length]).ok()?).ok()?;
        let mut filled = 0;
        loop {
            match file.read(&mut buffer[filled..]).ok()? {
                0 => return std::str::from_utf8(&buffer[..filled]).ok(),
                read => filled += read,
            }
        }
    }

    /// Minor and major page faults, fields 10 and 12 of proc(5)'s `stat`: the second is a name that may hold anything.
    fn faults(stat: &str) -> Option<(u64, u64)> {
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ').skip(7);
        let minor = fields.next()?.parse().ok()?;
        Some((minor, fields.nth(1)?.parse().ok()?))
    }

    /// Switches of both kinds, from `status`.
    fn switches(status: &str) -> Option<u64> {
        let of = |key: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse().ok()
        };
        Some(of("voluntary_ctxt_switches:")? + of("nonvoluntary_ctxt_switches:")?)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn each_refusal_has_its_reason() {
            for (errno, paranoid, expected) in [
                (libc::EACCES, "4\n", "perf_event_paranoid is 4"),
                (libc::EPERM, "", "the system refuses perf_event_open"),
                (libc::ENOENT, "2\n", "shows no such counter"),
                (libc::ENOSYS, "", "has no perf_event_open"),
                (libc::EMFILE, "", "file descriptors"),
                (libc::EINVAL, "", "too few counters"),
                (libc::EBUSY, "", "others use them"),
                (libc::E2BIG, "", "perf_event_open: "),
                (NOT_ASKED, "", "yet"),
            ] {
                let found = reason(errno, paranoid);
                assert!(found.contains(expected) && !found.contains('\n'), "{errno}: {found}");
            }
        }

        #[test]
        fn files_of_a_thread_are_read_as_its_usage_is() {
            let mut own = Counts::default();
            let mut files = Counts::default();
            read_usage(&mut own);
            read_files(this_thread(), &mut files);
            for counter in [Counter::MinorFaults, Counter::ContextSwitches] {
                let [own, files] = [own, files].map(|counts| counts.get(counter).unwrap());
                assert!(files >= own && files - own < 100, "{counter:?}: {own} {files}");
            }
            assert_eq!(faults("7 (a ) b) S 1 2 3 4 5 6 70 8 90 1"), Some((70, 90)));
            assert_eq!(faults("7 (a) S 1"), None);
            assert_eq!(
                switches("a:\t1\nvoluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t4\n"),
                Some(7)
            );
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod nothing {
    use super::super::counters::{Counter, Counts};

    /// No counters.
    pub struct ThreadCounters;

    impl ThreadCounters {
        pub fn attach(&self) {}
        pub fn open(&self) {}
        pub fn pause(&self) {}
        pub fn close(&self) {}
        pub fn read(&self, _own: bool) -> Counts {
            Counts::default()
        }
    }

    pub fn why_missing(_counter: Counter) -> Option<String> {
        Some("counters are read on Linux only".to_owned())
    }
}
