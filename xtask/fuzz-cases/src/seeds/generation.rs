//! Builds of which the owner's machine does a part only.

use oboro_ckks::{
    BatchEncryptor, BatchTableShare, Labels, MaskSeed, MaskedBatch, MaskedBatchCodebook,
    MaskedOffsets, SecretKey, TrainingSample,
};
use oboro_index::{BlindHead, BuildState, RecordEncoding, Rotation, SealedBlind};
use oboro_protocol::PROTOCOL_VERSION;
use oboro_protocol::build::v1 as build;
use oboro_protocol::generation::v1 as wire;
use oboro_quant::Metric;
use prost::Message;

use super::{DIMENSION, INDEX, Seeds, kind, owner, rng};
use crate::ckks::{BLOCKS, SAMPLES, batches, packing};

/// Builds in an enclave.
pub(super) fn builds(seeds: &mut Seeds, public_key: &[u8]) {
    let begin = build::Begin {
        protocol_version: PROTOCOL_VERSION,
        keys: owner().build_keys(&INDEX, true).to_bytes().to_vec().into(),
        seed: vec![7; 32].into(),
        public_key: public_key.to_vec().into(),
        options: Some(build::Options {
            metric: Metric::L2.name().to_owned(),
            rotation: Rotation::Subspace.name().to_owned(),
            subquantizers: Some(4),
            centroids: 16,
            split: 1,
            iterations: 5,
            training_seed: vec![8; 32].into(),
            candidates_max: 50,
            ..Default::default()
        }),
        vectors: 100,
        dimension: DIMENSION as u32,
        originals: RecordEncoding::F32.to_bytes().to_vec().into(),
        extra_bytes: 24,
        tags: vec![vec![1; 8].into()],
        largest_norm: 2.0,
        trial_rows: vec![3, 50],
        bytes_form: false,
    };
    seeds.push(("messages", kind(28, &begin.encode_to_vec())));
    let records = build::Records {
        vectors: vec![1; 24].into(),
        ids: vec![7, 8],
        tags: vec![1, 0],
        payloads: vec![vec![2; 3].into(), vec![].into()],
        ..Default::default()
    };
    seeds.push(("messages", kind(29, &records.encode_to_vec())));
}

/// Blind builds and inserts.
pub(super) fn blind(seeds: &mut Seeds) {
    let packing = batches();
    let values: Vec<f32> = (0..SAMPLES * packing.vector_len())
        .map(|x| x as f32 / 100.0)
        .collect();
    let sample = TrainingSample::new(&packing, &values, &mut rng(20)).expect("a small sample");
    let bounds = sample.bounds();
    let scale = bounds.scale(&packing).expect("small norms");
    let mut labels = Vec::new();
    for _ in 0..packing.subquantizers() {
        labels.extend((0..SAMPLES).flat_map(|x| [(x % packing.centroids()) as u8, 0]));
    }
    let read = Labels::from_bytes(&packing, SAMPLES, &labels).expect("a member each");
    let means = MaskSeed::generate(&mut rng(21))
        .means(&packing, &bounds, &read)
        .expect("labels of the sample")
        .to_bytes();
    let secret = SecretKey::generate(packing.set(), &mut rng(2));
    let public_key = secret.public_key(&mut rng(3));
    let batch = BatchEncryptor::new(scale, public_key.clone())
        .and_then(|encryptor| encryptor.encrypt(sample.batch(0), &mut rng(22)))
        .expect("vectors within the scale")
        .to_bytes();
    // What looks random may as well be zero.
    let masked = vec![0; MaskedBatch::encoded_len(&packing, BLOCKS.len())];
    let share = vec![0; BatchTableShare::encoded_len(&packing, BLOCKS.len())];
    let codebook = vec![0; MaskedBatchCodebook::encoded_len(&packing)];
    let offsets = vec![0; MaskedOffsets::largest_len(&self::packing())];
    for (number, bytes) in [
        &batch[..],
        &masked,
        &share,
        &codebook,
        &offsets,
        &means,
        &labels,
        &packing.to_bytes(),
        &bounds.to_bytes(),
    ]
    .into_iter()
    .enumerate()
    {
        seeds.push(("ciphertexts", kind(7 + number as u8, bytes)));
    }
    seeds.push(("ciphertexts", kind(15, &scale.to_bytes())));
    let of_keeper = [&packing.to_bytes()[..], &scale.to_bytes(), &means].concat();
    let mut of_searcher = [&packing.to_bytes()[..], &scale.to_bytes()].concat();
    of_searcher.extend(2u16.to_le_bytes());
    of_searcher.extend([0.5, 0.75_f64].into_iter().flat_map(f64::to_le_bytes));
    let offsets = vec![-0.5_f32; packing.table_len()];
    of_searcher.extend(offsets.into_iter().flat_map(f32::to_le_bytes));
    of_searcher.extend_from_slice(&means);
    kept(seeds, &of_searcher, &of_keeper);
    messages(seeds, &public_key.to_bytes(), batch);
}

/// What is kept of a training.
fn kept(seeds: &mut Seeds, of_searcher: &[u8], of_keeper: &[u8]) {
    let (storage, release) = (owner().storage_key(), owner().release_key());
    let head = BlindHead {
        index_id: INDEX,
        owner: [4; 32],
        plan: [5; 32],
    };
    let share = release.seal_share(&INDEX, of_keeper);
    let part = release.blind_part(&INDEX);
    let sealed = SealedBlind::seal(&storage, &part, head, &share, of_searcher);
    seeds.push(("index_parts", kind(4, sealed.to_bytes())));
    for apart_from_key in [None, Some([8; 32])] {
        let state = BuildState {
            index_id: INDEX,
            seed: [6; 32].into(),
            input: [7; 32],
            apart_from_key,
        };
        let state = state.to_bytes(&owner(), &mut rng(23));
        seeds.push(("index_parts", kind(5, &state)));
    }
    seeds.push(("index_parts", kind(6, of_searcher)));
    seeds.push(("index_parts", kind(7, of_keeper)));
    let keys = owner().build_keys(&INDEX, true).to_bytes();
    seeds.push(("index_parts", kind(8, &keys[..])));
}

fn messages(seeds: &mut Seeds, public_key: &[u8], batch: Vec<u8>) {
    let shape = wire::Shape {
        index_id: INDEX.to_vec().into(),
        batch_packing: batches().to_bytes().to_vec().into(),
        split: 1,
        bounds: vec![1; 20].into(),
        rounds: 3,
        vectors: 100,
        segments: 1,
    };
    let begin = wire::GeneratorBeginRequest {
        session: vec![1; 16].into(),
        shape: Some(shape.clone()),
        public_key: public_key.to_vec().into(),
        mask_seed: vec![2; 32].into(),
        training_seed: vec![3; 32].into(),
        vector_norm: 1.0,
        query_norm: 1.5,
        offsets: true,
    };
    let keepers = wire::KeeperBeginRequest {
        shape: Some(shape),
        key_fingerprint: vec![4; 32].into(),
    };
    let install = wire::InstallRequest {
        index_id: INDEX.to_vec().into(),
        share: vec![5; 40].into(),
        key_fingerprint: vec![4; 32].into(),
    };
    let encode = wire::EncodeBatchesRequest {
        index_id: INDEX.to_vec().into(),
        batches: vec![batch.into()],
        epoch: 2,
    };
    let segment = wire::SegmentRequest {
        session: vec![1; 16].into(),
        segment: 0,
        segment_id: vec![6; 16].into(),
        ids: vec![7, 8],
        tags: vec![1, 0],
        records: vec![9; 18].into(),
    };
    for (number, bytes) in [
        begin.encode_to_vec(),
        keepers.encode_to_vec(),
        install.encode_to_vec(),
        encode.encode_to_vec(),
        segment.encode_to_vec(),
    ]
    .into_iter()
    .enumerate()
    {
        seeds.push(("messages", kind(23 + number as u8, &bytes)));
    }
}
