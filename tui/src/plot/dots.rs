//! Braille dots: two by four of them in a cell, for what is finer than a cell.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// A field of dots over an area of cells.
#[derive(Debug, Clone)]
pub(crate) struct Dots {
    area: Rect,
    cells: Vec<u8>,
}

/// The bit of a dot in its cell, by row and column (Unicode's braille patterns count down the columns first).
const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

impl Dots {
    pub(crate) fn new(area: Rect) -> Self {
        Self { area, cells: vec![0; usize::from(area.width) * usize::from(area.height)] }
    }

    /// Dots across.
    pub(crate) fn width(&self) -> i64 {
        i64::from(self.area.width) * 2
    }

    /// Dots down.
    pub(crate) fn height(&self) -> i64 {
        i64::from(self.area.height) * 4
    }

    /// Sets the dot at column `x` and row `y` from the top left; outside the area nothing happens.
    pub(crate) fn set(&mut self, x: i64, y: i64) {
        if (0..self.width()).contains(&x) && (0..self.height()).contains(&y) {
            let cell = (y / 4) as usize * usize::from(self.area.width) + (x / 2) as usize;
            self.cells[cell] |= BITS[(y % 4) as usize][(x % 2) as usize];
        }
    }

    /// Sets the dots from one to another.
    pub(crate) fn line(&mut self, (x0, y0): (i64, i64), (x1, y1): (i64, i64)) {
        let steps = (x1 - x0).abs().max((y1 - y0).abs()).min(4 * (self.width() + self.height()));
        for i in 0..=steps {
            let t = if steps == 0 { 0.0 } else { i as f64 / steps as f64 };
            let x = x0 as f64 + t * (x1 - x0) as f64;
            let y = y0 as f64 + t * (y1 - y0) as f64;
            self.set(x.round() as i64, y.round() as i64);
        }
    }

    /// Writes the cells that have dots.
    pub(crate) fn paint(&self, buffer: &mut Buffer, style: Style) {
        for (index, &dots) in self.cells.iter().enumerate().filter(|(_, dots)| **dots != 0) {
            let x = self.area.x + (index % usize::from(self.area.width)) as u16;
            let y = self.area.y + (index / usize::from(self.area.width)) as u16;
            if let (Some(cell), Some(sign)) =
                (buffer.cell_mut((x, y)), char::from_u32(0x2800 + u32::from(dots)))
            {
                cell.set_char(sign).set_style(style);
            }
        }
    }
}
