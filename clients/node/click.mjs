// Embeds an image and clicks on it:  node click.mjs IMAGE X Y
// Addresses: MASKWIRE_ENCODER, MASKWIRE_DECODER. Prints the mask's score, area and size as JSON.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const definition = loader.loadSync(["encoder.proto", "decoder.proto"].map((name) => `maskwire/v1/${name}`), {
  includeDirs: [join(root, "protos")],
  keepCase: true,
  longs: Number,
  enums: String,
  oneofs: true,
});
const { EncoderService, DecoderService } = grpc.loadPackageDefinition(definition).maskwire.v1;
const plain = grpc.credentials.createInsecure();
const options = { "grpc.max_receive_message_length": 64 << 20 };
const CHUNK_BYTES = 1 << 20;

/** Sends the header, and the bytes if the encoder asks for them. */
function embed(encoder, data, imageId) {
  return new Promise((resolve, reject) => {
    const call = encoder.EncodeImage((error, response) => (error ? reject(error) : resolve(response)));
    call.on("metadata", (metadata) => {
      if (metadata.get("maskwire-content")[0] !== "needed") return;
      for (let start = 0; start < data.length; start += CHUNK_BYTES) {
        call.write({ chunk: data.subarray(start, start + CHUNK_BYTES) });
      }
      call.end();
    });
    const sha256 = createHash("sha256").update(data).digest();
    call.write({ header: { image_id: imageId, sha256, size_bytes: data.length } });
  });
}

/** The mask of one click, as COCO RLE. */
function click(decoder, imageId, x, y) {
  const metadata = new grpc.Metadata();
  metadata.set("maskwire-image", encodeURIComponent(imageId)); // balancers keep an image to one decoder by it
  const request = { image_id: imageId, prompts: [{ points: [{ x_px: x, y_px: y }] }] };
  return new Promise((resolve, reject) => {
    decoder.Segment(request, metadata, { deadline: Date.now() + 30_000 }, (error, response) =>
      error ? reject(error) : resolve(response));
  });
}

/** Pixels in the mask: its run lengths are of background, foreground, background and so on. */
function area(counts) {
  let pixels = 0;
  const runs = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const code = counts[at++] - 48;
      value |= (code & 0x1f) << shift;
      more = (code & 0x20) !== 0;
      shift += 5;
      if (!more && code & 0x10) value |= -1 << shift;
    }
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
    if (runs.length % 2 === 0) pixels += value;
  }
  return pixels;
}

const [path, x, y] = process.argv.slice(2);
if (y === undefined) {
  console.error("usage: node click.mjs IMAGE X Y");
  process.exit(2);
}
const encoder = new EncoderService(process.env.MASKWIRE_ENCODER ?? "localhost:50051", plain, options);
const decoder = new DecoderService(process.env.MASKWIRE_DECODER ?? "localhost:50052", plain, options);
try {
  const { image, cached } = await embed(encoder, readFileSync(path), "node");
  const { results } = await click(decoder, image.image_id, Number(x), Number(y));
  const [mask] = results[0].masks;
  const { width_px: width, height_px: height } = image;
  console.log(JSON.stringify({ width, height, cached, score: mask.score, area: area(Buffer.from(mask.rle.counts)) }));
} catch (error) {
  console.error(`error: ${error.details ?? error.message}`);
  process.exitCode = 1;
} finally {
  encoder.close();
  decoder.close();
}
