//! Rows of tables: embeddings by token, learned positions by place in the sequence; forward and backward.

use super::{At, Step, bytes_of};
use crate::profile::Zone;
use crate::train::parameters::Weight;
use crate::train::plan::View;
use crate::train::walk::Walk;

/// By what a table's rows are chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The row's token.
    Token,
    /// The row's position in its sequence.
    Position,
}

impl By {
    /// The table's row for a row of the batch.
    fn row(self, walk: &Walk<'_>, row: usize) -> usize {
        match self {
            By::Token => walk.tokens[row] as usize,
            By::Position => row % walk.context,
        }
    }
}

/// `out` = the table's rows.
pub struct Embed {
    pub table: Weight,
    pub by: By,
    pub out: View,
}

impl Step for Embed {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let (width, table) = (self.out.width, at.weight(self.table));
        for row in at.share.clone() {
            let from = self.by.row(walk, row) * width;
            at.own(self.out, row).copy_from_slice(&table[from..from + width]);
        }
    }

    fn zone(&self) -> Zone {
        Zone::Embed
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[2 * self.out.width])
    }
}

/// The gradient of a table: each row of `dy` is added to its row of the table's gradient. Workers share the columns, and
/// rows are added in their order.
pub struct TableGradient {
    pub table: Weight,
    pub by: By,
    pub dy: View,
}

impl Step for TableGradient {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let columns = at.worker.share(self.dy.width, 16);
        if columns.is_empty() {
            return;
        }
        let axpy = &walk.kernels.unary.axpy;
        for row in 0..walk.rows {
            let to = self.by.row(walk, row) * self.dy.width + columns.start;
            let to = walk.gradient(self.table).wrapping_add(to);
            // SAFETY: the table has the row; nobody writes `dy` now, and these columns of the gradient are this worker's.
            unsafe { axpy.run(1.0, walk.row(self.dy, row).wrapping_add(columns.start), to, columns.len()) };
        }
    }

    fn zone(&self) -> Zone {
        Zone::EmbedGradient
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[3 * self.dy.width])
    }
}
