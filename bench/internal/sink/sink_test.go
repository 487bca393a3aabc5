package sink

import (
	"bytes"
	"errors"
	"net/http"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// request has a metric of each kind, with 1 to 5 data points, and one that is not the page's.
func request() *collectorpb.ExportMetricsServiceRequest {
	return &collectorpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricspb.ResourceMetrics{{
		ScopeMetrics: []*metricspb.ScopeMetrics{{Metrics: []*metricspb.Metric{
			{Name: "bench_g", Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: make([]*metricspb.NumberDataPoint, 1)}}},
			{Name: "bench_s", Data: &metricspb.Metric_Sum{Sum: &metricspb.Sum{DataPoints: make([]*metricspb.NumberDataPoint, 2)}}},
			{Name: "up", Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: make([]*metricspb.NumberDataPoint, 100)}}},
		}}, {Metrics: []*metricspb.Metric{
			{Name: "bench_h", Data: &metricspb.Metric_Histogram{Histogram: &metricspb.Histogram{DataPoints: make([]*metricspb.HistogramDataPoint, 3)}}},
			{Name: "bench_e", Data: &metricspb.Metric_ExponentialHistogram{ExponentialHistogram: &metricspb.ExponentialHistogram{DataPoints: make([]*metricspb.ExponentialHistogramDataPoint, 4)}}},
		}}},
	}, {
		ScopeMetrics: []*metricspb.ScopeMetrics{{Metrics: []*metricspb.Metric{
			{Name: "bench_y", Data: &metricspb.Metric_Summary{Summary: &metricspb.Summary{DataPoints: make([]*metricspb.SummaryDataPoint, 5)}}},
		}}},
	}}}
}

const points = 1 + 2 + 3 + 4 + 5

func TestPoints(t *testing.T) {
	data, err := proto.Marshal(request())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := Points(data, "bench_"); n != points || err != nil {
		t.Errorf("%d points of the page, %v; want %d", n, err, points)
	}
	if n, err := Points(data, ""); n != points+100 || err != nil {
		t.Errorf("%d points, %v; want %d", n, err, points+100)
	}
	for end := range data { // no truncated request panics
		_, _ = Points(data[:end], "bench_")
	}
	if _, err := Points(data[:len(data)-1], ""); err == nil {
		t.Error("a truncated request is not an error")
	}
}

func TestOTLP_CountsWhatAClientSends(t *testing.T) {
	sink, err := NewOTLP(DefaultLimit, "bench_", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sink.Stop)
	conn, err := grpc.NewClient(sink.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := collectorpb.NewMetricsServiceClient(conn)
	for range 3 {
		if _, err := client.Export(t.Context(), request()); err != nil {
			t.Fatal(err)
		}
	}
	want := Counts{Requests: 3, Bytes: 3 * int64(proto.Size(request())), Points: 3 * points}
	want.Wire = want.Bytes
	if got := sink.Counts(); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}

	big := request()
	big.ResourceMetrics[0].SchemaUrl = string(bytes.Repeat([]byte{'x'}, DefaultLimit))
	if _, err := client.Export(t.Context(), big); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request over the limit: %v", err)
	}

	sink.Stop()
	if _, err := client.Export(t.Context(), request()); status.Code(err) != codes.Unavailable {
		t.Errorf("a stopped receiver: %v", err)
	}
	if err := sink.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Export(t.Context(), request(), grpc.WaitForReady(true)); err != nil {
		t.Errorf("started again: %v", err)
	}
}

func TestOTLP_ObserverRefuses(t *testing.T) {
	sink, err := NewOTLP(DefaultLimit, "", func([]byte) error { return errors.New("not now") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sink.Stop)
	conn, err := grpc.NewClient(sink.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = collectorpb.NewMetricsServiceClient(conn).Export(t.Context(), request())
	if status.Code(err) != codes.Unavailable || sink.Counts().Requests != 0 {
		t.Errorf("%v, counted %+v", err, sink.Counts())
	}
}

func TestRemoteWrite(t *testing.T) {
	var label, other, series, write []byte
	label = protowire.AppendString(protowire.AppendTag(label, 1, protowire.BytesType), "__name__")
	label = protowire.AppendString(protowire.AppendTag(label, 2, protowire.BytesType), "bench_a")
	other = protowire.AppendString(protowire.AppendTag(other, 1, protowire.BytesType), "job")
	other = protowire.AppendString(protowire.AppendTag(other, 2, protowire.BytesType), "bench_")
	for _, l := range [][]byte{label, other} {
		series = protowire.AppendBytes(protowire.AppendTag(series, 1, protowire.BytesType), l)
	}
	for range 2 {
		series = protowire.AppendBytes(protowire.AppendTag(series, 2, protowire.BytesType), nil)
	}
	for range 3 {
		write = protowire.AppendBytes(protowire.AppendTag(write, 1, protowire.BytesType), series)
	}
	unnamed := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), other)
	unnamed = protowire.AppendBytes(protowire.AppendTag(unnamed, 2, protowire.BytesType), nil)
	write = protowire.AppendBytes(protowire.AppendTag(write, 1, protowire.BytesType), unnamed)

	sink, err := NewRemoteWrite("bench_")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{"snappy": snappy.Encode(nil, write), "zstd": encoder.EncodeAll(write, nil)} {
		before := sink.Counts()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, sink.URL, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Encoding", name)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		want := Counts{Requests: 1, Bytes: int64(len(write)), Wire: int64(len(body)), Points: 6}
		if got := sink.Counts().Sub(before); got != want || response.StatusCode != http.StatusNoContent {
			t.Errorf("%s: %s, counted %+v, want %+v", name, response.Status, got, want)
		}
	}
}
