//! The name of the processor.

/// The processor's name, such as "Intel(R) Xeon(R) Processor"; the architecture's where it tells none.
pub fn cpu_name() -> String {
    let name = brand();
    if name.is_empty() { std::env::consts::ARCH.to_owned() } else { name }
}

/// CPUID 0x80000002 to 0x80000004: 48 bytes of text.
#[cfg(target_arch = "x86_64")]
fn brand() -> String {
    use crate::cpu::cpuid;
    if cpuid(0x8000_0000).eax < 0x8000_0004 {
        return String::new();
    }
    let bytes: Vec<u8> = (0x8000_0002..=0x8000_0004u32)
        .map(cpuid)
        .flat_map(|part| [part.eax, part.ebx, part.ecx, part.edx])
        .flat_map(u32::to_le_bytes)
        .take_while(|&byte| byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// Linux knows some; there is no instruction that a program may use.
#[cfg(not(target_arch = "x86_64"))]
fn brand() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name") || line.starts_with("Model"));
    line.and_then(|line| line.split_once(':')).map_or(String::new(), |(_, name)| name.trim().to_owned())
}
