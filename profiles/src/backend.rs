//! What a backend must offer: whoever times asks for nothing else of a device.
//!
//! The processor is one ([`crate::cpu`]), NVIDIA's GPUs another ([`crate::cuda`]). A new one is a folder with an
//! implementation, a variant of [`search::device::Device`], and the line of [`crate::device::open`] that the compiler then
//! asks for.

use search::Architecture;
use search::device::Device;
use search::latency::{Conditions, LatencyKey, Limit, Timing};

use crate::error::ProfileError;

/// Times parts and models on one device.
pub trait Backend {
    /// The device, as a campaign file names it.
    fn device(&self) -> Device;

    /// The name of the hardware, as conditions must give it: `cpu: AMD EPYC 7763`.
    fn hardware(&self) -> &str;

    /// The version of the kernels, which stands beside every timing.
    fn kernels(&self) -> String {
        kernels::version()
    }

    /// Times one part, as it runs in a model of `working_set_kib`; 0 stands for no model in particular.
    ///
    /// # Errors
    /// When the conditions cannot be met on this device.
    fn part(&self, key: &LatencyKey) -> Result<Timing, ProfileError>;

    /// Times a whole model with random weights, and counts the energy of a token where the device has a counter.
    ///
    /// # Errors
    /// When the conditions cannot be met on this device.
    fn whole(
        &self,
        architecture: &Architecture,
        conditions: &Conditions,
    ) -> Result<Timing, ProfileError>;

    /// Whether a model can be timed, without timing it: all that [`Backend::whole`] would refuse before it runs.
    ///
    /// # Errors
    /// When it cannot, with the reason.
    fn check(
        &self,
        architecture: &Architecture,
        conditions: &Conditions,
    ) -> Result<(), ProfileError>;

    /// Times what bounds every model on this device.
    ///
    /// # Errors
    /// When the device has not what it takes.
    fn limit(&self, limit: Limit, threads: u32) -> Result<Timing, ProfileError>;

    /// What the device says of itself now, for the log: clocks, power, heat, who else uses it. Nothing where it says
    /// nothing.
    fn telemetry(&self) -> Option<String>;
}
