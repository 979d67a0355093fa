//! What a step of a loss costs at the size of Stanford Online Products: the
//! median time of value and gradients, and the peak of memory.
//!
//!     cargo run --release -p oboro-learn --example loss_cost -- NAME [CLASSES] [PER_CLASS] [ITEMS] [DIMENSIONS] [STEPS]
//!
//! NAME is one of the losses that `Settings::named` knows; the other defaults
//! are 11318 2 180 512 7. Peak memory is the process's (`VmHWM`), so each loss
//! is measured in a process of its own.

use burn::tensor::{Tensor, TensorData};
use chacha20::ChaCha20Rng;
use oboro_learn::backend::cpu_autodiff;
use oboro_learn::geometry::tensor::{exp0_clipped, normalize};
use oboro_learn::losses::{Dimensions, Embeddings, Loss, Settings};
use rand_core::{Rng, SeedableRng};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().ok_or("name a loss")?;
    let number = |at: usize, default: usize| match arguments.get(at) {
        Some(text) => text.parse(),
        None => Ok(default),
    };
    let (classes, per_class) = (number(1, 11_318)?, number(2, 2)?);
    let (items, length, steps) = (number(3, 180)?, number(4, 512)?, number(5, 7)?);

    let mut settings = Settings::named(name)?;
    set_proxies(&mut settings, per_class);
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let device = cpu_autodiff();
    let dimensions = Dimensions {
        euclidean: length,
        hyperbolic: Some(length),
    };
    let before = peak_kib()?;
    let loss = settings.build(classes, dimensions, &device, &mut rng)?;
    let mut head = || -> Tensor<2> {
        let values: Vec<f32> = (0..items * length)
            .map(|_| (f64::from(rng.next_u32()) / 2f64.powi(31) - 1.0) as f32)
            .collect();
        Tensor::from_data(TensorData::new(values, [items, length]), &device)
    };
    let (e, u) = (head(), head().mul_scalar(0.1));
    let labels: Vec<usize> = (0..items).map(|i| i / 2 * 97 % classes).collect();

    let mut times = Vec::with_capacity(steps);
    for step in 0..=steps {
        let embeddings = Embeddings {
            euclidean: normalize(e.clone().require_grad()),
            hyperbolic: Some(exp0_clipped(u.clone().require_grad(), 0.1, 2.3)),
        };
        let start = Instant::now();
        let value = loss.forward(&embeddings, &labels, &mut rng)?;
        let gradients = value.backward();
        let passed = start.elapsed();
        drop(gradients);
        // The first step warms up.
        if step > 0 {
            times.push(passed);
        }
    }
    times.sort();
    let median = times.get(times.len() / 2).ok_or("give a step or more")?;
    println!(
        "{name}: {:.0} ms a step (median of {steps}), peak {} MiB of which {} before the loss; {classes} classes x {per_class}, {items} items, {length} dimensions",
        median.as_secs_f64() * 1e3,
        peak_kib()? / 1024,
        before / 1024,
    );
    Ok(())
}

/// Gives every loss the same number of proxies, and takes the regularisers of
/// proxies away: what is compared is the distance.
fn set_proxies(settings: &mut Settings, per_class: usize) {
    match settings {
        Settings::Proxies(proxies) => {
            proxies.per_class = per_class;
            proxies.regularisers.clear();
        }
        Settings::Chest(chest) => chest.per_class = per_class,
        Settings::Sum { terms } => {
            for term in terms {
                set_proxies(&mut term.of, per_class);
            }
        }
        _ => {}
    }
}

/// The most memory that the process has held.
fn peak_kib() -> Result<usize, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
