package translate

import dto "github.com/prometheus/client_model/go"

// maxGaps bounds the empty buckets that the gaps of all native histograms of a
// page may be filled with.
const maxGaps = 1 << 20

// isNative reports whether h has a native part, by the test that Prometheus
// itself makes (model/textparse).
func isNative(h *dto.Histogram) bool {
	return len(h.GetPositiveSpan()) > 0 || len(h.GetNegativeSpan()) > 0 || h.GetZeroThreshold() > 0 || h.GetZeroCount() > 0
}

// arena hands out bucket counts that live until the next page.
type arena struct{}

func (*arena) reset() {}
