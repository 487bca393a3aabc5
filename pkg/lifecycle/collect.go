package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// ScopeName is the instrumentation scope of what is measured here and of the
// caller's instruments.
const ScopeName = "otelmetricsplugin"

// exporter is a MeterProvider whose metrics are collected as the bytes of an
// OTLP request.
type exporter struct {
	provider *sdkmetric.MeterProvider
	reader   *sdkmetric.ManualReader
	grpc     *otlpmetricgrpc.Exporter
	conn     *grpc.ClientConn

	// Both are used again by the next collection.
	metrics metricdata.ResourceMetrics
	request []byte
}

// newExporter returns an exporter, which the caller closes.
func newExporter(temporality sdkmetric.TemporalitySelector) (*exporter, error) {
	// otlpmetricgrpc takes a connection and no client of another kind. The
	// interceptor takes every request off; the connection is never dialed.
	e := &exporter{}
	conn, err := grpc.NewClient("passthrough:///intercepted",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(e.intercept))
	if err != nil {
		return nil, err
	}
	if temporality == nil {
		temporality = sdkmetric.CumulativeTemporalitySelector
	}
	e.grpc, err = otlpmetricgrpc.New(context.Background(),
		otlpmetricgrpc.WithGRPCConn(conn),
		otlpmetricgrpc.WithTemporalitySelector(temporality),
		otlpmetricgrpc.WithTimeout(0),        // nothing here waits for the network
		otlpmetricgrpc.WithMaxRequestSize(0), // the request is cut into parts later
		otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{Enabled: false}),
	)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	e.conn = conn
	e.reader = sdkmetric.NewManualReader(sdkmetric.WithTemporalitySelector(e.grpc.Temporality))
	e.provider = sdkmetric.NewMeterProvider(
		sdkmetric.WithReader(e.reader),
		sdkmetric.WithResource(resource.Empty()), // the translator knows the resource
	)
	return e, nil
}

// meter returns the meter of all instruments.
func (e *exporter) meter(version string) metric.Meter {
	return e.provider.Meter(ScopeName, metric.WithInstrumentationVersion(version))
}

// collect runs the callbacks and returns what they observed as an encoded
// request, which is valid until the next collection. With delta temporality the
// reader takes what it collected for exported, so there may be both a request
// and an error.
func (e *exporter) collect() ([]byte, error) {
	ctx := context.Background()
	e.request = e.request[:0]
	err := e.reader.Collect(ctx, &e.metrics)
	if len(e.metrics.ScopeMetrics) > 0 {
		err = errors.Join(err, e.grpc.Export(ctx, &e.metrics))
	}
	if err != nil {
		err = fmt.Errorf("own metrics: %w", err)
	}
	return e.request, err
}

// intercept is a grpc.UnaryClientInterceptor: it keeps the request, and answers
// as a server that accepted it.
func (e *exporter) intercept(_ context.Context, _ string, request, _ any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
	message, ok := request.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "%T is not a protobuf message", request)
	}
	var err error
	e.request, err = proto.MarshalOptions{}.MarshalAppend(e.request, message)
	return err
}

// close shuts down the MeterProvider and the connection.
func (e *exporter) close() error {
	ctx := context.Background()
	return errors.Join(e.provider.Shutdown(ctx), e.grpc.Shutdown(ctx), e.conn.Close())
}
