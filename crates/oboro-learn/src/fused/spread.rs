//! Distances of all pairs from their products, in one pass.
//!
//! Of a few numbers a row, a few a column and a matrix of products, burn makes
//! distances in a dozen passes over matrices as large as the products, and as
//! many on the way back. Here each direction is one pass, row after row.
//! Blocks of rows are shared among the threads of the pool that calls; sums
//! over rows are taken block by block in their order, so bits do not depend on
//! the number of threads.

use super::{Plain, held, plain, recorded, sum_by};
use burn::backend::Flex;
use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::Tensor;
use oboro_simd::Arch;
use rayon::prelude::*;

/// Rows that one thread takes at a time.
const BLOCK: usize = 128;

/// A distance as a function of `z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `2 arsinh √z`.
    Arsinh,
    /// `2 √z`.
    Root,
}

/// `[N, B]`: `factor` times the form of `z`, where `z` of row `i` and column
/// `j` is `a_i b_j + c_i d_j - s_i p_ij`, but no less than the row's floor.
///
/// `rows` is `[N, 3]` and holds a, c and s; `columns` is `[B, 2]` and holds b
/// and d; `floors` is `[N, 1]` and has no gradient.
///
/// `None` where the tensors are not the CPU's.
pub(crate) fn spread(
    products: &Tensor<2>,
    rows: &Tensor<2>,
    columns: &Tensor<2>,
    floors: &Tensor<2>,
    form: Form,
    factor: f64,
) -> Option<Tensor<2>> {
    let inputs = [recorded(products)?, recorded(rows)?, recorded(columns)?];
    let floors = held(floors)?.to_contiguous();
    let nodes = [inputs[0].node(), inputs[1].node(), inputs[2].node()];
    let [count, width] = products.dims();
    let [products, rows, columns] = inputs.map(|input| input.into_primitive().to_contiguous());
    let shape = Shape {
        count,
        width,
        form,
        factor: factor as f32,
    };
    let state = (shape, [products, rows, columns, floors]);
    let output = plain(Sides::of(&state.1).forward(shape), &[count, width]);
    let recorded = match Spread
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prepared) => prepared.finish(state, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    Some(Tensor::from_primitive::<Autodiff<Flex>>(recorded))
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    count: usize,
    width: usize,
    form: Form,
    factor: f32,
}

#[derive(Debug)]
struct Spread;

impl Backward<Flex, 3> for Spread {
    type State = (Shape, [Plain; 4]);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let (shape, state) = ops.state;
        let (of_products, of_rows, of_columns) =
            Sides::of(&state).backward(shape, gradient.storage());
        let found = [
            plain(of_products, &[shape.count, shape.width]),
            plain(of_rows, &[shape.count, 3]),
            plain(of_columns, &[shape.width, 2]),
        ];
        for (node, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(node) = node {
                gradients.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// What distances are made of.
struct Sides<'a> {
    products: &'a [f32],
    /// a, c and s of each row.
    rows: &'a [[f32; 3]],
    floors: &'a [f32],
    /// b of all columns.
    b: Vec<f32>,
    /// d of all columns.
    d: Vec<f32>,
}

/// A row and what it is multiplied with.
#[derive(Clone, Copy)]
struct Row<'a> {
    products: &'a [f32],
    numbers: [f32; 3],
    floor: f32,
    b: &'a [f32],
    d: &'a [f32],
}

impl<'a> Sides<'a> {
    fn of([products, rows, columns, floors]: &'a [Plain; 4]) -> Self {
        let columns: &[f32] = columns.storage();
        let columns = columns.as_chunks::<2>().0;
        Self {
            products: products.storage(),
            rows: rows.storage::<f32>().as_chunks().0,
            floors: floors.storage(),
            b: columns.iter().map(|c| c[0]).collect(),
            d: columns.iter().map(|c| c[1]).collect(),
        }
    }

    fn row(&self, at: usize) -> Row<'_> {
        let width = self.b.len();
        Row {
            products: &self.products[at * width..][..width],
            numbers: self.rows[at],
            floor: self.floors[at],
            b: &self.b,
            d: &self.d,
        }
    }

    fn forward(&self, shape: Shape) -> Vec<f32> {
        let Shape { count, width, .. } = shape;
        let mut output = vec![0.0; count * width];
        let arch = Arch::detect();
        output
            .par_chunks_mut((BLOCK * width).max(1))
            .enumerate()
            .for_each(|(block, output)| {
                arch.vectorize(
                    #[inline(always)]
                    || {
                        let rows = output.chunks_exact_mut(width).enumerate();
                        for (at, output) in rows {
                            self.row(block * BLOCK + at).values(shape, output);
                        }
                    },
                );
            });
        output
    }

    /// The gradients of products, rows and columns.
    fn backward(&self, shape: Shape, gradient: &[f32]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let Shape { count, width, .. } = shape;
        let mut of_products = vec![0.0; count * width];
        let mut of_rows = vec![[0f32; 3]; count];
        let arch = Arch::detect();
        let chunk = (BLOCK * width).max(1);
        let of_columns: Vec<[Vec<f32>; 2]> = of_products
            .par_chunks_mut(chunk)
            .zip(of_rows.par_chunks_mut(BLOCK))
            .zip(gradient.par_chunks(chunk))
            .enumerate()
            .map(|(block, ((slopes, of_rows), gradient))| {
                let mut sums = [vec![0.0; width], vec![0.0; width]];
                arch.vectorize(
                    #[inline(always)]
                    || {
                        let rows = slopes
                            .chunks_exact_mut(width)
                            .zip(gradient.chunks_exact(width))
                            .zip(of_rows)
                            .enumerate();
                        for (at, ((slopes, gradient), of_row)) in rows {
                            let row = self.row(block * BLOCK + at);
                            *of_row = row.slopes(shape, gradient, slopes, &mut sums);
                        }
                    },
                );
                sums
            })
            .collect();
        // Block after block, in double precision: there may be many.
        let mut sums = vec![[0f64; 2]; width];
        for [b, d] in of_columns {
            for ((sum, b), d) in sums.iter_mut().zip(b).zip(d) {
                *sum = [sum[0] + f64::from(b), sum[1] + f64::from(d)];
            }
        }
        let of_columns = sums.into_iter().flatten().map(|sum| sum as f32).collect();
        (of_products, of_rows.into_flattened(), of_columns)
    }
}

impl Row<'_> {
    #[inline(always)]
    fn values(self, shape: Shape, output: &mut [f32]) {
        let factor = shape.factor;
        match shape.form {
            Form::Arsinh => self.map(
                output,
                #[inline(always)]
                |z| {
                    // With m = √(z (1 + z)) this keeps the digits of small z.
                    let m = (z * (1.0 + z)).sqrt();
                    factor * ln_1p(2.0 * (z + m))
                },
            ),
            Form::Root => self.map(
                output,
                #[inline(always)]
                |z| 2.0 * factor * z.sqrt(),
            ),
        }
    }

    /// Puts the gradients of products into `to`, adds those of the columns to
    /// `sums` and returns those of the row.
    #[inline(always)]
    fn slopes(
        self,
        shape: Shape,
        gradient: &[f32],
        to: &mut [f32],
        sums: &mut [Vec<f32>; 2],
    ) -> [f32; 3] {
        let factor = shape.factor;
        match shape.form {
            Form::Arsinh => self.map(
                to,
                #[inline(always)]
                |z| factor / (z * (1.0 + z)).sqrt(),
            ),
            Form::Root => self.map(
                to,
                #[inline(always)]
                |z| factor / z.sqrt(),
            ),
        }
        for (to, &gradient) in to.iter_mut().zip(gradient) {
            *to *= gradient;
        }
        let [a, c, s] = self.numbers;
        let found = [
            products_of(to, self.b),
            products_of(to, self.d),
            -products_of(to, self.products),
        ];
        let [of_b, of_d] = sums;
        for (((to, b), d), _) in to.iter_mut().zip(of_b).zip(of_d).zip(self.b) {
            *b += a * *to;
            *d += c * *to;
            *to *= -s;
        }
        found
    }

    /// A function of `z`.
    #[inline(always)]
    fn map(self, to: &mut [f32], of: impl Fn(f32) -> f32) {
        let [a, c, s] = self.numbers;
        let columns = self.b.iter().zip(self.d);
        for ((to, &product), (&b, &d)) in to.iter_mut().zip(self.products).zip(columns) {
            let z = a * b + c * d - s * product;
            // What is not a number stays so.
            *to = of(if z < self.floor { self.floor } else { z });
        }
    }
}

/// The sum of products, in a fixed order.
#[inline(always)]
fn products_of(a: &[f32], b: &[f32]) -> f32 {
    sum_by(
        a,
        b,
        #[inline(always)]
        |x, y| x * y,
    )
}

/// `ln(1 + x)` of `x` no less than 0, within a few units in the last place:
/// the polynomial of Cephes, in operations that compilers vectorize. What
/// `1 + x` loses in rounding is made up for.
#[inline(always)]
fn ln_1p(x: f32) -> f32 {
    const ROOT_HALF: i32 = 0x3f35_04f3;
    let u = 1.0 + x;
    let lost = (x - (u - 1.0)) / u;
    // u is 2^e times a number from √½ to √2.
    let e = ((u.to_bits() as i32).wrapping_sub(ROOT_HALF)) >> 23;
    let f = f32::from_bits((u.to_bits() as i32).wrapping_sub(e << 23) as u32) - 1.0;
    let e = e as f32;
    let mut p = 7.037_683_6e-2;
    for coefficient in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        p = p * f + coefficient;
    }
    let square = f * f;
    let rest = p * f * square - 2.121_944_4e-4 * e - 0.5 * square;
    (f + (rest + lost)) + 0.693_359_4 * e
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backend::{cpu, cpu_autodiff};
    use burn::tensor::TensorData;
    use chacha20::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    #[test]
    fn logarithms_are_right_to_the_last_digits() {
        let mut worst = 0.0f64;
        let mut x = 1e-30f32;
        while x < 1e30 {
            let exact = f64::from(x).ln_1p();
            worst = worst.max((f64::from(ln_1p(x)) / exact - 1.0).abs());
            x *= 1.0037;
        }
        assert!(worst < 3e-7, "{worst}");
        assert_eq!(ln_1p(0.0), 0.0);
        assert!(ln_1p(f32::NAN).is_nan());
    }

    fn draw(shape: [usize; 2], rng: &mut ChaCha20Rng) -> Vec<f64> {
        let one = |rng: &mut ChaCha20Rng| f64::from(rng.next_u32()) / 2f64.powi(32);
        (0..shape[0] * shape[1]).map(|_| one(rng)).collect()
    }

    fn tensor(values: &[f64], shape: [usize; 2]) -> Tensor<2> {
        let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), &cpu_autodiff()).require_grad()
    }

    /// In double precision, from the definition.
    fn exact(form: Form, z: f64) -> (f64, f64) {
        match form {
            Form::Arsinh => (2.0 * z.sqrt().asinh(), 1.0 / (z * (1.0 + z)).sqrt()),
            Form::Root => (2.0 * z.sqrt(), 1.0 / z.sqrt()),
        }
    }

    #[track_caller]
    fn near(found: Tensor<2>, wanted: &[f64]) {
        let found = found.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(found.len(), wanted.len());
        let size = wanted.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (&found, wanted) in found.iter().zip(wanted) {
            let apart = (f64::from(found) - wanted).abs();
            assert!(apart <= 2e-6 * size, "{found} {wanted} of {size}");
        }
    }

    #[test]
    fn values_and_gradients_are_those_of_the_definition() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        // The last needs several blocks.
        for (count, width) in [(1, 1), (3, 17), (BLOCK, 5), (2 * BLOCK + 3, 40)] {
            for (form, factor) in [(Form::Arsinh, 0.7), (Form::Root, -1.5)] {
                let products = draw([count, width], &mut rng);
                let mut rows = draw([count, 3], &mut rng);
                rows.iter_mut().for_each(|v| *v = v.mul_add(3.0, 0.5));
                let columns = draw([width, 2], &mut rng);
                let weigh = draw([count, width], &mut rng);
                let leaves = [
                    tensor(&products, [count, width]),
                    tensor(&rows, [count, 3]),
                    tensor(&columns, [width, 2]),
                ];
                let floor = 0.05;
                let floors = tensor(&vec![floor; count], [count, 1]).inner();
                let [p, r, c] = &leaves;
                let found = spread(p, r, c, &floors, form, factor).unwrap();
                let mut values = Vec::new();
                let mut slopes = [
                    vec![0.0; count * width],
                    vec![0.0; count * 3],
                    vec![0.0; width * 2],
                ];
                for i in 0..count {
                    for j in 0..width {
                        let at = i * width + j;
                        let (row, column) = (&rows[i * 3..][..3], &columns[j * 2..][..2]);
                        let z = row[0] * column[0] + row[1] * column[1] - row[2] * products[at];
                        let (value, slope) = exact(form, z.max(floor));
                        values.push(factor * value);
                        let slope = factor * slope * weigh[at];
                        slopes[0][at] -= slope * row[2];
                        slopes[1][i * 3] += slope * column[0];
                        slopes[1][i * 3 + 1] += slope * column[1];
                        slopes[1][i * 3 + 2] -= slope * products[at];
                        slopes[2][j * 2] += slope * row[0];
                        slopes[2][j * 2 + 1] += slope * row[1];
                    }
                }
                near(found.clone(), &values);
                let weigh = tensor(&weigh, [count, width]).inner();
                let gradients = (found * weigh).sum().backward();
                for (leaf, slopes) in leaves.iter().zip(&slopes) {
                    near(leaf.grad(&gradients).unwrap(), slopes);
                }
            }
        }
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let mut rng = ChaCha20Rng::from_seed([2; 32]);
                let (count, width) = (3 * BLOCK + 7, 33);
                let leaves = [[count, width], [count, 3], [width, 2]]
                    .map(|shape| tensor(&draw(shape, &mut rng), shape));
                let [p, r, c] = &leaves;
                let floors = tensor(&vec![1e-3; count], [count, 1]).inner();
                let found = spread(p, r, c, &floors, Form::Arsinh, 1.0).unwrap();
                let gradients = (found.clone() * found.clone()).sum().backward();
                let mut all = vec![found];
                all.extend(leaves.iter().map(|leaf| leaf.grad(&gradients).unwrap()));
                all.into_iter()
                    .flat_map(|t| t.into_data().try_to_vec::<f32>().unwrap())
                    .map(f32::to_bits)
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for bad in [f64::NAN, f64::INFINITY] {
            for form in [Form::Arsinh, Form::Root] {
                let products = tensor(&[0.1, bad, 0.1, 0.1], [2, 2]);
                let rows = tensor(&[1.0; 6], [2, 3]);
                let columns = tensor(&[1.0; 4], [2, 2]);
                let floors = tensor(&[1e-6; 2], [2, 1]).inner();
                let found = spread(&products, &rows, &columns, &floors, form, 1.0).unwrap();
                let found = found.into_data().try_to_vec::<f32>().unwrap();
                // An infinite product is an infinitely near pair, whose
                // distance is the floor's.
                assert_eq!(found[1].is_nan(), bad.is_nan(), "{found:?}");
                assert!(found[0].is_finite() && found[2].is_finite());
            }
        }
    }

    #[test]
    fn fail_other_tensors_are_left_to_burn() {
        let x = Tensor::<2>::zeros([2, 2], &cpu());
        let rows = Tensor::<2>::zeros([2, 3], &cpu());
        let floors = Tensor::<2>::zeros([2, 1], &cpu());
        assert!(spread(&x, &rows, &x, &floors, Form::Root, 1.0).is_none());
    }
}
