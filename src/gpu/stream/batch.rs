//! One batch: to the device, and what came back to the host.

use super::*;

impl Model {
    /// Sends rows to the device.
    pub(super) fn send(
        &self,
        sae: &Sae<'_>,
        rows: Rows<'_>,
        range: Range<usize>,
        stream: &mut Stream,
        slot: usize,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), Error> {
        let mut work = scratch.split(sae)?;
        let Some(of) = stream.slots.get_mut(slot) else {
            return Ok(());
        };
        let (count, width) = (range.len(), self.quads * 4);
        of.rows.clear();
        of.inputs.clear();
        stream.sent.clear();
        stream.sent_spreads.clear();
        reserve(&mut of.rows, count, "rows of a batch")?;
        reserve(&mut of.inputs, count * self.d_in, "rows of a batch")?;
        reserve(&mut stream.sent, count * width, "rows of a batch")?;
        reserve(&mut stream.sent_spreads, count, "rows of a batch")?;
        let kernels = BlockedKernels::for_level(sae.level());
        for row in range {
            if sae.prepare_row(rows, row, &mut work).is_none() {
                of.rows.push(Sent::NonFinite);
                of.inputs.resize(of.inputs.len() + self.d_in, 0.0);
                continue;
            }
            of.inputs.extend_from_slice(work.input);
            let start = stream.sent.len();
            match self.centre.is_empty() {
                true => stream.sent.extend_from_slice(work.input),
                false => {
                    let pairs = work.input.iter().zip(&self.centre);
                    stream.sent.extend(pairs.map(|(x, c)| x - c));
                }
            }
            let [squares, _] = kernels.measure(stream.sent.get(start..).unwrap_or(&[]));
            match bounds::row(squares) {
                Some(spread) => {
                    of.rows.push(Sent::Device(stream.sent_spreads.len() as u32));
                    stream.sent_spreads.push(spread);
                    stream.sent.resize(start + width, 0.0);
                }
                None => {
                    of.rows.push(Sent::Host);
                    stream.sent.truncate(start);
                }
            }
        }
        of.on_device = stream.sent_spreads.len();
        self.submit(stream, slot)
    }

    pub(super) fn submit(&self, stream: &mut Stream, slot: usize) -> Result<(), Error> {
        let before = self.device.faults();
        let (device, queue) = (&self.device.device, &self.device.queue);
        let Some(of) = stream.slots.get_mut(slot) else {
            return Ok(());
        };
        let rows = of.on_device as u32;
        let ends_bytes = ends_bytes(stream.rows);
        if rows > 0 {
            queue.write_buffer(&stream.inputs, 0, bytemuck::cast_slice(&stream.sent));
            queue.write_buffer(
                &stream.spreads,
                0,
                bytemuck::cast_slice(&stream.sent_spreads),
            );
        }
        let (k, magnitude) = self.ranked.unwrap_or((0, false));
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let flags = flag(magnitude, MAGNITUDE)
            | flag(self.ranked.is_some(), RANKED)
            | flag(stream.mode == Mode::Fast, FAST);
        for (chunk, params) in self.chunks.iter().zip(&stream.params) {
            let of = Params {
                quads: self.quads as u32,
                rows,
                d_sae: self.d_sae as u32,
                first: chunk.first as u32,
                features: chunk.features as u32,
                flags,
                k: k as u32,
                capacity: stream.capacity as u32,
            };
            queue.write_buffer(params, 0, bytemuck::bytes_of(&of));
        }
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.clear_buffer(&stream.ends, 0, None);
        if rows > 0 {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&self.encode);
            for (chunk, group) in self.chunks.iter().zip(&stream.encode) {
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(chunk.features.div_ceil(64) as u32, rows.div_ceil(64), 1);
            }
            if let Some(group) = &stream.rank {
                pass.set_pipeline(&self.rank);
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(rows, 1, 1);
            }
            pass.set_pipeline(&self.compact);
            pass.set_bind_group(0, &of.compact, &[]);
            pass.dispatch_workgroups(rows, 1, 1);
        }
        let words = stream.mode.words();
        of.fetched = stream.fetched.min(stream.capacity);
        let fetched = (of.fetched * words * 4) as u64;
        encoder.copy_buffer_to_buffer(&stream.ends, 0, &of.staging, 0, ends_bytes);
        encoder.copy_buffer_to_buffer(&of.list, 0, &of.staging, ends_bytes, fetched);
        queue.submit([encoder.finish()]);
        of.mapping = Some(Mapping::of(&of.staging.slice(0..ends_bytes + fetched)));
        self.device
            .check_since(before, "a batch", stream.device_bytes)
    }

    /// Takes what a slot's batch found, and adds its rows to the features.
    pub(super) async fn take(
        &self,
        sae: &Sae<'_>,
        stream: &mut Stream,
        slot: usize,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
        block: bool,
    ) -> Result<(), Error> {
        self.fetch(stream, slot, block).await?;
        let mut work = scratch.split(sae)?;
        let Some(of) = stream.slots.get(slot) else {
            return Ok(());
        };
        let found = &mut stream.work;
        stream.counts.candidates += found.len() as u64;
        found.add_always(&self.always, of.on_device)?;
        let inputs = device_inputs(of, self.d_in)?;
        match stream.mode {
            Mode::Exact => found.compute(sae, &inputs)?,
            Mode::Fast => found.estimate(sae, &inputs)?,
        }
        for (row, sent) in of.rows.iter().enumerate() {
            let status = match *sent {
                Sent::NonFinite => RowStatus::NonFinite,
                Sent::Device(at) if !found.overflowed.get(at as usize).is_some_and(|&o| o) => {
                    select(sae, found.of_row(at as usize), &mut work, features)?
                }
                Sent::Host | Sent::Device(_) => {
                    stream.counts.host_rows += 1;
                    let input = of.inputs.get(row * self.d_in..(row + 1) * self.d_in);
                    if let Some(input) = input {
                        work.input.copy_from_slice(input);
                    }
                    sae.encode_row(&mut work, features)?
                }
            };
            features.end_row(status)?;
        }
        Ok(())
    }

    /// Brings the candidates of a slot to the host.
    pub(super) async fn fetch(
        &self,
        stream: &mut Stream,
        slot: usize,
        block: bool,
    ) -> Result<(), Error> {
        let words = stream.mode.words();
        let ends_bytes = ends_bytes(stream.rows);
        let Some(of) = stream.slots.get_mut(slot) else {
            return Ok(());
        };
        let Some(mapping) = of.mapping.clone() else {
            return Err(not_started());
        };
        self.device.mapped(&mapping, block).await?;
        let failed = |error: wgpu::MapRangeError| self.device.mapping_failed(error.to_string());
        let found = &mut stream.work;
        let bytes = |from: u64, count: u64| from..from + count;
        let slice = of.staging.slice(bytes(0, ends_bytes));
        let mut ends: Vec<u32> = Vec::new();
        {
            let view = slice.get_mapped_range().map_err(failed)?;
            let held = 2 + 2 * of.on_device;
            reserve(&mut ends, held, "ends of rows")?;
            let each = view.chunks_exact(4).take(held);
            ends.extend(each.map(|word| {
                let word: [u8; 4] = word.try_into().unwrap_or_default();
                u32::from_le_bytes(word)
            }));
        }
        let all = ends.first().map_or(0, |&all| all as usize);
        let wanted = all.min(stream.capacity);
        if wanted > of.fetched {
            // The rest, which nobody expected.
            of.staging.unmap();
            of.mapping = None;
            let device = &self.device;
            let descriptor = wgpu::CommandEncoderDescriptor::default();
            let mut encoder = device.device.create_command_encoder(&descriptor);
            let list = (wanted * words * 4) as u64;
            encoder.copy_buffer_to_buffer(&of.list, 0, &of.staging, ends_bytes, list);
            device.queue.submit([encoder.finish()]);
            let mapping = Mapping::of(&of.staging.slice(bytes(ends_bytes, list)));
            of.mapping = Some(mapping.clone());
            device.check("candidates", list)?;
            device.mapped(&mapping, block).await?;
        }
        let list_bytes = (wanted * words * 4) as u64;
        found.clear(of.on_device, wanted)?;
        if list_bytes > 0 {
            let slice = of.staging.slice(bytes(ends_bytes, list_bytes));
            let view = slice.get_mapped_range().map_err(failed)?;
            for (row, pair) in ends.get(2..).unwrap_or(&[]).chunks_exact(2).enumerate() {
                found.add_row(row, [pair[0], pair[1]], words, &view, self.d_sae);
            }
        } else {
            for (row, pair) in ends.get(2..).unwrap_or(&[]).chunks_exact(2).enumerate() {
                found.add_row(row, [pair[0], pair[1]], words, &[], self.d_sae);
            }
        }
        of.staging.unmap();
        of.mapping = None;
        // A quarter more than this time, in whole lines.
        let all = all.min(stream.capacity);
        let next = (all + all / 4).next_multiple_of(1024);
        stream.fetched = next.clamp(1.min(stream.capacity), stream.capacity);
        self.device.check("candidates", list_bytes)
    }
}

/// The prepared rows that are on the device, in its order.
fn device_inputs(slot: &Slot, d_in: usize) -> Result<Vec<&[f32]>, Error> {
    let mut inputs = Vec::new();
    reserve(&mut inputs, slot.on_device, "rows of a batch")?;
    for (sent, input) in slot.rows.iter().zip(slot.inputs.chunks_exact(d_in)) {
        if let Sent::Device(_) = sent {
            inputs.push(input);
        }
    }
    Ok(inputs)
}
