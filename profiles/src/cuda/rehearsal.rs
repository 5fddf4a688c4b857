//! A machine on which nothing happens: what would be refused on a GPU is found out on it by doing all that comes before a
//! launch. The program of a step is made, passes are listed, every shape is checked by those who check it in earnest, but
//! nothing is allocated, copied or run.

use kernels::cuda::product::Product;
use kernels::cuda::{Error, Extent, Launch, Machine};

/// A machine of some extent on which nothing happens.
#[derive(Debug, Clone, Copy)]
pub struct Rehearsal {
    extent: Extent,
    next: u64,
}

/// Addresses begin above 0, which stands for nothing, and are as far apart as those of a GPU.
const ALIGNMENT: u64 = 256;

impl Rehearsal {
    /// As large as another machine.
    pub fn of(extent: Extent) -> Self {
        Self { extent, next: ALIGNMENT }
    }
}

impl Machine for Rehearsal {
    fn extent(&self) -> Extent {
        self.extent
    }

    fn allocate(&mut self, bytes: usize) -> Result<u64, Error> {
        let address = self.next;
        self.next += (bytes as u64).next_multiple_of(ALIGNMENT).max(ALIGNMENT);
        Ok(address)
    }

    fn free(&mut self, _: u64) -> Result<(), Error> {
        Ok(())
    }

    fn upload(&mut self, _: u64, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn download(&mut self, _: u64, bytes: &mut [u8]) -> Result<(), Error> {
        bytes.fill(0);
        Ok(())
    }

    fn pretend(&mut self, _: u64, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn launch(&mut self, _: &Launch) -> Result<(), Error> {
        Ok(())
    }

    fn product(&mut self, _: &Product) -> Result<(), Error> {
        Ok(())
    }
}
