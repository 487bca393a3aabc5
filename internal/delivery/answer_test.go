package delivery

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// withRetryInfo is an error that asks for a pause.
func withRetryInfo(code codes.Code, d time.Duration) error {
	st, err := status.New(code, "busy").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(d)})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func TestJudgeFollowsTheOTLPSpecification(t *testing.T) {
	for _, c := range []struct {
		err   error
		what  verdict
		delay time.Duration
	}{
		{nil, delivered, 0},
		// docs/specification.md of opentelemetry-proto, "OTLP/gRPC Response".
		{status.Error(codes.Canceled, ""), retry, 0},
		{status.Error(codes.Unknown, ""), rejected, 0},
		{status.Error(codes.InvalidArgument, ""), rejected, 0},
		{status.Error(codes.DeadlineExceeded, ""), retry, 0},
		{status.Error(codes.NotFound, ""), rejected, 0},
		{status.Error(codes.AlreadyExists, ""), rejected, 0},
		{status.Error(codes.PermissionDenied, ""), rejected, 0},
		{status.Error(codes.ResourceExhausted, "quota"), rejected, 0},
		{status.Error(codes.FailedPrecondition, ""), rejected, 0},
		{status.Error(codes.Aborted, ""), retry, 0},
		{status.Error(codes.OutOfRange, ""), retry, 0},
		{status.Error(codes.Unimplemented, "unknown service"), rejected, 0},
		{status.Error(codes.Internal, ""), rejected, 0},
		{status.Error(codes.Unavailable, ""), retry, 0},
		{status.Error(codes.DataLoss, ""), retry, 0},
		{status.Error(codes.Unauthenticated, ""), rejected, 0},
		// A pause that the server asks for, within reason.
		{withRetryInfo(codes.ResourceExhausted, 7*time.Second), retry, 7 * time.Second},
		{withRetryInfo(codes.ResourceExhausted, 0), retry, 0},
		{withRetryInfo(codes.Unavailable, 3*time.Second), retry, 3 * time.Second},
		{withRetryInfo(codes.Unavailable, 24*time.Hour), retry, maxRetryDelay},
		{withRetryInfo(codes.Unavailable, -time.Hour), retry, 0},
		{withRetryInfo(codes.InvalidArgument, time.Second), rejected, 0},
		// Too large, in the words of several servers.
		{status.Error(codes.ResourceExhausted, "grpc: received message larger than max (5 vs. 4)"), tooLarge, 0},
		{status.Error(codes.ResourceExhausted, "grpc: received message after decompression larger than max 4194304"), tooLarge, 0},
		{status.Error(codes.ResourceExhausted, "gRPC message exceeds maximum size 4194304: 5000000"), tooLarge, 0},
		{status.Error(codes.ResourceExhausted, "Received message exceeds the maximum configured message size."), tooLarge, 0},
		{status.Error(codes.Unknown, "unexpected HTTP status code received from server: 413 (Request Entity Too Large)"), tooLarge, 0},
		// Not an OTLP server's answer, whatever the code that grpc-go gives it.
		{status.Error(codes.Internal, "stream terminated by RST_STREAM with error code: INTERNAL_ERROR"), retry, 0},
		{status.Error(codes.ResourceExhausted, "stream terminated by RST_STREAM with error code: ENHANCE_YOUR_CALM"), retry, 0},
		{status.Error(codes.Internal, "server closed the stream without sending trailers"), retry, 0},
		{status.Error(codes.Unimplemented, "unexpected HTTP status code received from server: 404 (Not Found)"), retry, 0},
		{status.Error(codes.Unknown, `unexpected HTTP status code received from server: 500 (Internal Server Error); transport: received unexpected content-type "text/html"`), retry, 0},
		{status.Error(codes.Unauthenticated, "unexpected HTTP status code received from server: 401 (Unauthorized)"), rejected, 0},
		{errors.New("the connection's own"), retry, 0},
		{context.DeadlineExceeded, retry, 0},
		{fmt.Errorf("wrapped: %w", status.Error(codes.InvalidArgument, "")), rejected, 0},
	} {
		if what, delay := judge(c.err); what != c.what || delay != c.delay {
			t.Errorf("judge(%v) = %v, %v; want %v, %v", c.err, what, delay, c.what, c.delay)
		}
	}
}
