package collector

import (
	"context"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func TestCollectorKeepsWhatItReceivesAcrossARestart(t *testing.T) {
	c := New(t, nil)
	c.Start(t)
	send(t, c.Endpoint, "before")
	c.Stop(t)
	c.Start(t)
	send(t, c.Endpoint, "after")

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	mark := 0
	for _, want := range []string{"before", "after"} {
		md, next, err := c.Received.Wait(ctx, mark, func(pmetric.Metrics) bool { return true })
		if err != nil {
			t.Fatalf("waiting for %q: %v", want, err)
		}
		mark = next
		got := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Name()
		if got != want {
			t.Errorf("received %q, want %q", got, want)
		}
	}
}

func send(t *testing.T, endpoint, name string) {
	t.Helper()
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName(name)
	m.SetEmptyGauge().DataPoints().AppendEmpty().SetDoubleValue(1)
	if _, err := pmetricotlp.NewGRPCClient(conn).Export(t.Context(), pmetricotlp.NewExportRequestFromMetrics(md)); err != nil {
		t.Fatalf("export to %s: %v", endpoint, err)
	}
}
