//! Subnormal numbers taken as zero. A processor multiplies them by microcode, tens of times slower than other numbers; a
//! state whose decay has made it as small holds nothing that a sum could still see.

use std::marker::PhantomData;

/// Until it is dropped, this thread takes subnormal numbers as zero, as inputs and as results; then it does as it did
/// before. Where the processor has no such switch nothing changes.
#[must_use = "subnormals count again when it is dropped"]
#[derive(Debug)]
pub struct Flushed {
    /// What the register held, if that has changed.
    before: Option<u32>,
    /// A register is of one thread.
    thread: PhantomData<*const ()>,
}

impl Flushed {
    /// From now on.
    pub fn begin() -> Self {
        let now = register::read();
        let wanted = now | register::FLUSH;
        let before = (wanted != now).then(|| {
            register::write(wanted);
            now
        });
        Self { before, thread: PhantomData }
    }

    /// Whether this thread does so now.
    pub fn is_on() -> bool {
        register::FLUSH != 0 && register::read() & register::FLUSH == register::FLUSH
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            register::write(before);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod register {
    use std::arch::asm;

    /// Results that are flushed to zero, and inputs that are taken as zero.
    pub(super) const FLUSH: u32 = 1 << 15 | 1 << 6;

    pub(super) fn read() -> u32 {
        let mut value = 0_u32;
        // SAFETY: stores the register's four bytes where they have room.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        value
    }

    /// `value` differs from what [`read`] gave in no bit but those of [`FLUSH`].
    pub(super) fn write(value: u32) {
        // SAFETY: loads what the register held, with no other bits changed than those of `FLUSH`: exceptions stay masked, and
        // rounding stays as it is. The compiler takes it that subnormals count; where it computes with one beforehand the
        // result differs by less than the least normal number, which nothing here relies on.
        unsafe {
            asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags));
        };
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod register {
    pub(super) const FLUSH: u32 = 0;

    pub(super) fn read() -> u32 {
        0
    }

    pub(super) fn write(_: u32) {}
}
