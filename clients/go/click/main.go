// Embeds an image and clicks on it:  click IMAGE X Y
//
// Addresses: MASKWIRE_ENCODER, MASKWIRE_DECODER; a token: MASKWIRE_TOKEN. Prints the mask's score, area and size as JSON.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "maskwire/v1"
)

const chunkBytes = 1 << 20

// embed sends the header, and the bytes if the encoder asks for them.
func embed(ctx context.Context, encoder pb.EncoderServiceClient, data []byte, imageID string) (*pb.EncodeImageResponse, error) {
	call, err := encoder.EncodeImage(ctx)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(data)
	header := &pb.EncodeImageHeader{ImageId: imageID, Sha256: digest[:], SizeBytes: uint64(len(data))}
	sent := call.Send(&pb.EncodeImageRequest{Frame: &pb.EncodeImageRequest_Header{Header: header}})
	if sent != nil && sent != io.EOF { // after io.EOF, CloseAndRecv tells why
		return nil, sent
	}
	answer, err := call.Header()
	if err == nil && len(answer["maskwire-content"]) > 0 && answer["maskwire-content"][0] == "needed" {
		for start := 0; start < len(data) && sent == nil; start += chunkBytes {
			end := start + chunkBytes
			if end > len(data) {
				end = len(data)
			}
			sent = call.Send(&pb.EncodeImageRequest{Frame: &pb.EncodeImageRequest_Chunk{Chunk: data[start:end]}})
		}
	}
	return call.CloseAndRecv()
}

// click returns the mask of one click, as COCO RLE.
func click(ctx context.Context, decoder pb.DecoderServiceClient, imageID string, x, y float32) (*pb.Mask, error) {
	// Balancers keep an image to one decoder by this.
	ctx = metadata.AppendToOutgoingContext(ctx, "maskwire-image", url.QueryEscape(imageID))
	prompt := &pb.Prompt{Points: []*pb.Point{{XPx: x, YPx: y}}}
	response, err := decoder.Segment(ctx, &pb.SegmentRequest{ImageId: imageID, Prompts: []*pb.Prompt{prompt}})
	if err != nil {
		return nil, err
	}
	return response.Results[0].Masks[0], nil
}

// area counts the pixels in a mask: its run lengths are of background, foreground, background and so on.
func area(counts string) (pixels int64) {
	var runs []int64
	for at := 0; at < len(counts); {
		var value int64
		for shift, more := uint(0), true; more; shift += 5 {
			code := int64(counts[at]) - 48
			at++
			value |= (code & 0x1f) << shift
			more = code&0x20 != 0
			if !more && code&0x10 != 0 {
				value |= -1 << (shift + 5)
			}
		}
		if len(runs) > 2 {
			value += runs[len(runs)-2]
		}
		runs = append(runs, value)
		if len(runs)%2 == 0 {
			pixels += value
		}
	}
	return pixels
}

// told is an error with its reason and the field that is wrong, which are in its details.
func told(err error) string {
	failed, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	said := failed.Message()
	for _, detail := range failed.Details() {
		switch found := detail.(type) {
		case *errdetails.ErrorInfo:
			said += " [" + found.Reason + "]"
		case *errdetails.BadRequest:
			for _, violation := range found.FieldViolations {
				said += " (" + violation.Field + ")"
			}
		}
	}
	return said
}

func connect(variable, otherwise string) (*grpc.ClientConn, error) {
	address := os.Getenv(variable)
	if address == "" {
		address = otherwise
	}
	return grpc.Dial(address, grpc.WithInsecure(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
}

func run(path string, x, y float32) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	toEncoder, err := connect("MASKWIRE_ENCODER", "localhost:50051")
	if err != nil {
		return err
	}
	defer toEncoder.Close()
	toDecoder, err := connect("MASKWIRE_DECODER", "localhost:50052")
	if err != nil {
		return err
	}
	defer toDecoder.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if token := os.Getenv("MASKWIRE_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	embedded, err := embed(ctx, pb.NewEncoderServiceClient(toEncoder), data, "go")
	if err != nil {
		return err
	}
	mask, err := click(ctx, pb.NewDecoderServiceClient(toDecoder), embedded.Image.ImageId, x, y)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"width":  embedded.Image.WidthPx,
		"height": embedded.Image.HeightPx,
		"cached": embedded.Cached,
		"score":  mask.Score,
		"area":   area(mask.Rle.Counts),
	})
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: click IMAGE X Y")
		os.Exit(2)
	}
	x, wrong := strconv.ParseFloat(os.Args[2], 32)
	y, wrongToo := strconv.ParseFloat(os.Args[3], 32)
	if wrong != nil || wrongToo != nil {
		fmt.Fprintln(os.Stderr, "error: X and Y are numbers of pixels")
		os.Exit(2)
	}
	if err := run(os.Args[1], float32(x), float32(y)); err != nil {
		fmt.Fprintln(os.Stderr, "error: "+told(err))
		os.Exit(1)
	}
}
