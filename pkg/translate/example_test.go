package translate_test

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.opentelemetry.io/otel/attribute"
	colmetricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/internal/otlp"
	"otelmetricsplugin/pkg/translate"
)

// A text exposition, encoded as delimited protobuf, becomes OTLP requests of at
// most 4 MiB.
func Example() {
	const text = `# TYPE builds_total counter
builds_total{result="ok"} 3
builds_total{result="failed"} 1
`
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		fmt.Println(err)
		return
	}
	var exposition bytes.Buffer
	encoder := expfmt.NewEncoder(&exposition, expfmt.NewFormat(expfmt.TypeProtoDelim))
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			fmt.Println(err)
			return
		}
	}

	translator := translate.New(translate.Config{
		Defaults: []attribute.KeyValue{attribute.String("service.name", "builder")},
	})
	w := otlp.NewWriter(4<<20, func(request []byte, points int) {
		var r colmetricpb.ExportMetricsServiceRequest
		if err := proto.Unmarshal(request, &r); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(points, "points of", r.ResourceMetrics[0].Resource.Attributes[0].Value.GetStringValue())
		for _, m := range r.ResourceMetrics[0].ScopeMetrics[0].Metrics {
			for _, p := range m.GetSum().GetDataPoints() {
				fmt.Println(m.Name, p.Attributes[0].Key, p.Attributes[0].Value.GetStringValue(), p.GetAsDouble())
			}
		}
	})
	result := translator.Translate(exposition.Bytes(), time.Now(), w)
	w.Close()
	fmt.Println(result.Samples, "samples")

	// Output:
	// 2 points of builder
	// builds_total result ok 3
	// builds_total result failed 1
	// 2 samples
}
