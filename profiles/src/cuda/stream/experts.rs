//! A mixture of experts in the program of a step: only those that the token chose are streamed.

use kernels::cuda::Error;
use kernels::cuda::decode::{Experts as Units, Input, Output, Phase, SCRATCH_BYTES};
use search::architecture::Experts;

use super::program::{Builder, Packed, check};
use crate::cuda::shapes::Load;

impl Builder<'_> {
    pub(super) fn experts(
        &mut self,
        width: usize,
        of: Experts,
        norm: u64,
        load: Load,
    ) -> Result<(), Error> {
        let d = self.d_model();
        let [experts, chosen] = [of.experts, of.per_token].map(|n| n as usize);
        check(width.is_multiple_of(4), "the width of an expert", "a multiple of 4", width)?;
        let router = self.pack(&[&load("router.weight", experts * d)], d)?;
        let logits = self.allocate(experts.next_multiple_of(4) * 4)?;
        let phase = self.gemv(&router, d, Input::RmsNorm, Output::Store, experts)?;
        self.push(Phase { out: logits, ..self.reading(phase, norm) });

        // all read the same, so before anything is written; the shared one meanwhile hides how long the choice takes
        let shared = match width * of.shared as usize {
            0 => None,
            width => {
                let own = &mut |name: &str, count: usize| load(&format!("shared.{name}"), count);
                Some((width, self.swiglu(width, norm, own)?))
            }
        };
        let before = self.streamed_bytes;
        let all = experts * width;
        let (gate, up) = (load("gate.weight", all * d), load("up.weight", all * d));
        let matrix = self.pack_pairs(&gate, &up)?;
        let down = load("down.weight", experts * d * width);
        let back = self.pack(&[&down], width)?;
        // a step reads the chosen alone
        self.streamed_bytes =
            before + (self.streamed_bytes - before) * chosen as u64 / experts as u64;
        let rows = self.storage().rows();
        let groups = 2 * width / rows; // of an expert
        let of_experts = Phase {
            heads: experts as u32,
            splits: chosen as u32,
            tiles: groups as u32,
            z: logits,
            ..Phase::default()
        };
        let hidden = self.allocate(chosen * width * 4)?;
        let units = groups * matrix.pieces;
        let read = Packed { groups: chosen * groups, ..matrix };
        let phase = self.gemv(&read, d, Input::RmsNorm, Output::Swiglu, 2 * chosen * width)?;
        let phase = self.reading(phase, norm);
        self.push(of_experts.of_units(Phase { out: hidden, ..phase }, Units::ByGroup, units));

        if let Some((width, hidden)) = shared {
            let down = load("shared.down.weight", d * width);
            let of = Phase { x: hidden, ..Phase::default() };
            self.project_back(&down, width, Input::Plain, of)?;
        }
        // Where rows of all chosen fit side by side they are the pieces of one product, else they follow each other.
        let units = d / rows * back.pieces;
        let written = Packed { groups: d / rows, ..back };
        let warps = self.warps();
        let side_by_side = written.pieces == 1
            && written.chunks * 256 == width
            && warps.is_multiple_of(chosen)
            && chosen * width * 4 <= SCRATCH_BYTES as usize;
        if side_by_side {
            let written = Packed { pieces: chosen, ..written };
            let columns = chosen * width;
            let phase = self.gemv(&written, columns, Input::Plain, Output::Residual, d)?;
            let phase = Phase { x: hidden, ..phase };
            self.push_residual(of_experts.of_units(phase, Units::ByPiece, units))?;
        } else {
            for slot in 0..chosen {
                let phase = self.gemv(&written, width, Input::Plain, Output::Residual, d)?;
                let phase = Phase { x: hidden + 4 * (slot * width) as u64, ..phase };
                let phase = of_experts.of_units(phase, Units::One, units);
                self.push_residual(Phase { window: slot as u32, ..phase })?;
            }
        }
        Ok(())
    }
}
