package scrape_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protodelim"

	"otelmetricsplugin/pkg/scrape"
)

func Example() {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = io.WriteString(w, "# TYPE containers gauge\ncontainers{state=\"running\"} 3\ncontainers{state=\"paused\"} 1\n")
	}))
	defer target.Close()

	scraper, err := scrape.New(scrape.Config{URL: target.URL + "/metrics", MaxSamples: 1000})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer scraper.Close()

	exposition, err := scraper.Scrape(context.Background())
	var limit *scrape.LimitError
	switch {
	case errors.As(err, &limit):
		fmt.Println("more than", limit.Max, limit.Limit)
		return
	case err != nil:
		fmt.Println(err)
		return
	}

	for r := bytes.NewReader(exposition); r.Len() > 0; {
		var family dto.MetricFamily
		if err := protodelim.UnmarshalFrom(r, &family); err != nil {
			fmt.Println(err)
			return
		}
		for _, m := range family.GetMetric() {
			fmt.Println(family.GetName(), m.GetLabel()[0].GetValue(), m.GetGauge().GetValue())
		}
	}
	// Output:
	// containers running 3
	// containers paused 1
}
