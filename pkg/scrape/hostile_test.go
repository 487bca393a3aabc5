package scrape_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"otelmetricsplugin/pkg/scrape"
)

func format(protobuf bool) expfmt.FormatType {
	if protobuf {
		return expfmt.TypeProtoDelim
	}
	return expfmt.TypeTextPlain
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// sub is a field of a protobuf message that holds a message.
func sub(field protowire.Number, message string) string {
	return string(protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), message))
}

// word is a short name of its own for each i.
func word(i int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	w := []byte{letters[i%len(letters)]}
	for i /= len(letters); i > 0; i /= len(letters) {
		w = append(w, letters[i%len(letters)])
	}
	return string(w)
}

// A hostile page is a unit, repeated: what is small on the wire and large when
// decoded, or slow to decode.
type hostile struct {
	name string
	unit func(i int) string
	// page makes a page of the repeated unit.
	page     func(units string) string
	protobuf bool
}

// of makes a page of n bytes, of which one part in share is hostile and the
// rest is a long help text.
func (h hostile) of(n, share int) []byte {
	var units strings.Builder
	for i := 0; ; i++ {
		unit := h.unit(i)
		if units.Len()+len(unit) > n/share {
			break
		}
		units.WriteString(unit)
	}
	page := h.page(units.String())
	if rest := n - len(page); rest > 32 {
		if h.protobuf {
			page += frame(sub(1, "filler") + sub(2, strings.Repeat("x", rest-32)))
		} else {
			page += "# HELP filler " + strings.Repeat("x", rest-32) + "\n"
		}
	}
	return []byte(page)
}

func hostilePages() []hostile {
	same := func(unit string) func(int) string { return func(int) string { return unit } }
	family := func(s string) string { return frame(sub(1, "a") + s) }
	metric := func(s string) string { return family(sub(4, s)) }
	histogram := func(s string) string { return metric(sub(7, s)) }
	summary := func(s string) string { return metric(sub(4, s)) }
	lines := func(s string) string { return s }
	typed := func(typ string) func(string) string {
		return func(s string) string { return "# TYPE h " + typ + "\n" + s }
	}
	labels := func(n int) string {
		var line strings.Builder
		line.WriteString("a{")
		for i := range n {
			fmt.Fprintf(&line, "%s=\"\",", word(i))
		}
		return line.String() + "}1\n"
	}
	return []hostile{
		{"empty frames", same("\x00"), lines, true},
		{"families with a name", func(i int) string { return frame(sub(1, word(i))) }, lines, true},
		{"empty metrics", same(sub(4, "")), family, true},
		{"metrics with an empty gauge", same(sub(4, sub(2, ""))), family, true},
		{"metrics with an empty histogram", same(sub(4, sub(7, ""))), family, true},
		{"metrics with everything, empty", same(sub(4, sub(2, "")+sub(3, "")+sub(4, "")+sub(5, "")+sub(7, ""))), family, true},
		{"counters with an empty exemplar and timestamps", same(sub(4, sub(3, sub(2, sub(3, ""))+sub(3, "")))), family, true},
		{"empty labels", same(sub(1, "")), metric, true},
		{"labels of empty strings", same(sub(1, sub(1, "")+sub(2, ""))), metric, true},
		{"empty buckets", same(sub(3, "")), histogram, true},
		{"buckets with an empty exemplar and its label", same(sub(3, sub(3, sub(1, "")+sub(3, "")))), histogram, true},
		{"empty spans", same(sub(12, "") + sub(9, "")), histogram, true},
		{"empty exemplars", same(sub(16, "")), histogram, true},
		{"empty quantiles", same(sub(3, "")), summary, true},
		{"deltas one by one", same("\x68\x00"), histogram, true},
		{"deltas packed", same("\x00"), func(s string) string { return histogram(sub(13, s)) }, true},
		{"deltas in packed runs of one", same(sub(13, "\x00")), histogram, true},
		{"counts in packed runs of one", same(sub(14, "\x00\x00\x00\x00\x00\x00\x00\x00")), histogram, true},
		{"unknown fields", same(sub(4, "\x98\x06\x00")), family, true},
		{"unknown groups, nested", same("\x9b\x06"), family, true},
		{"the name again and again", same(sub(1, "a")), family, true},

		{"the same sample", same("a 1\n"), lines, false},
		{"families of one sample", func(i int) string { return word(i) + " 1\n" }, lines, false},
		{"types of families without samples", func(i int) string { return "# TYPE " + word(i) + " histogram\n" }, lines, false},
		{"empty help", func(i int) string { return "# HELP " + word(i) + " \n" }, lines, false},
		{"histograms", func(i int) string { return "h{b=\"" + word(i) + "\"}1\n" }, typed("histogram"), false},
		{"buckets", func(i int) string { return fmt.Sprintf("h{le=\"%d\"}1\n", i) }, typed("histogram"), false},
		{"summaries", func(i int) string { return "h{b=\"" + word(i) + "\"}1\n" }, typed("summary"), false},
		{"counts of a summary", same("h_count 1\n"), typed("summary"), false},
		{"one empty label", same("a{b=\"\"}1\n"), lines, false},
		{"spaces around an equals sign", same("a{b = \"\"}1\n"), lines, false},
		{"nine labels", same(labels(9)), lines, false},
		{"sixty labels", same(labels(60)), lines, false},
		{"labels without end", func(i int) string { return word(i) + "=\"\"," }, func(s string) string { return "a{" + s + "} 1\n" }, false},
		{"quoted names", same("{\"a\",b=\"\"}1\n"), lines, false},
		{"escapes", same(`\\`), func(s string) string { return "a{b=\"" + s + "\"} 1\n" }, false},
		{"a long name", same("a"), func(s string) string { return s + " 1\n" }, false},
		{"comments", same("#\n"), lines, false},
		{"blank lines", same("\n"), lines, false},
		{"blanks", same(" "), lines, false},
	}
}

// TestAHostilePageOf1MiBTakesLessThan64MiB tries each kind of hostile page, and
// of one that is refused as much as is not. Protobuf takes nothing at all.
func TestAHostilePageOf1MiBTakesLessThan64MiB(t *testing.T) {
	refused := 0
	for _, h := range hostilePages() {
		for share := 1; ; share *= 2 {
			page := h.of(1<<20, share)
			var err error
			n := allocated(func() { _, err = scrape.Exposition(t.Context(), page, format(h.protobuf), scrape.Config{}) })
			most := uint64(64 << 20)
			if h.protobuf {
				most = 16 << 10
			}
			if n > most {
				t.Errorf("%s, 1/%d of %d bytes: %d bytes allocated, error %v", h.name, share, len(page), n, err)
			}
			var limit *scrape.LimitError
			if !errors.As(err, &limit) {
				break
			}
			refused++
		}
	}
	if refused < 20 {
		t.Errorf("%d pages were refused: they are not hostile enough", refused)
	}
}

// exposition returns the families that a Scrape makes of a page.
func exposition(t testing.TB, page []byte, protobuf bool) ([]*dto.MetricFamily, error) {
	exposition, err := scrape.Exposition(t.Context(), page, format(protobuf), scrape.Config{})
	if err != nil {
		return nil, err
	}
	return unmarshal(exposition)
}

// TestAnHonestPageIsFarFromTheLimitOfMemory scrapes what pages of metrics
// look like, at sizes where the limit is proportional to the page.
func TestAnHonestPageIsFarFromTheLimitOfMemory(t *testing.T) {
	for name, families := range map[string][]*dto.MetricFamily{
		"100k series of two labels": manySeries(100_000),
		"50k gauges with short names": func() (families []*dto.MetricFamily) {
			for i := range 50_000 {
				families = append(families, &dto.MetricFamily{Name: proto.String("g" + word(i)), Type: dto.MetricType_GAUGE.Enum(),
					Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: proto.Float64(float64(i))}}}})
			}
			return families
		}(),
		"20k native histograms": func() []*dto.MetricFamily {
			family := &dto.MetricFamily{Name: proto.String("engine_native_seconds"), Type: dto.MetricType_HISTOGRAM.Enum()}
			for i := range 20_000 {
				h := &dto.Histogram{SampleCount: proto.Uint64(10), SampleSum: proto.Float64(3), Schema: proto.Int32(3), ZeroThreshold: proto.Float64(1e-128),
					PositiveSpan:  []*dto.BucketSpan{{Offset: proto.Int32(0), Length: proto.Uint32(5)}, {Offset: proto.Int32(7), Length: proto.Uint32(5)}},
					PositiveDelta: []int64{1, 0, 0, 0, 0, 0, 0, 0, 0, 0}}
				family.Metric = append(family.Metric, &dto.Metric{Label: []*dto.LabelPair{{Name: proto.String("n"), Value: proto.String(word(i))}}, Histogram: h})
			}
			return []*dto.MetricFamily{family}
		}(),
	} {
		page, textPage := encode(t, families)
		got, err := exposition(t, page, true)
		if err != nil || len(got) != len(families) {
			t.Errorf("%s, %d bytes of protobuf: %d families, error %v", name, len(page), len(got), err)
		}
		if strings.Contains(name, "native") {
			continue // which text does not have
		}
		got, err = exposition(t, textPage, false)
		if err != nil || len(got) != len(families) {
			t.Errorf("%s, %d bytes of text: %d families, error %v", name, len(textPage), len(got), err)
		}
	}
}

// manySeries are families of 1000 counters each.
func manySeries(n int) (families []*dto.MetricFamily) {
	for f := range n / 1000 {
		family := &dto.MetricFamily{Name: proto.String(fmt.Sprintf("engine_synthetic_%d_total", f)), Help: proto.String("A counter."), Type: dto.MetricType_COUNTER.Enum()}
		for i := range 1000 {
			family.Metric = append(family.Metric, &dto.Metric{
				Label: []*dto.LabelPair{
					{Name: proto.String("method"), Value: proto.String(fmt.Sprintf("m%d", i))},
					{Name: proto.String("code"), Value: proto.String("OK")},
				},
				Counter: &dto.Counter{Value: proto.Float64(float64(i))},
			})
		}
		families = append(families, family)
	}
	return families
}

func encode(t testing.TB, families []*dto.MetricFamily) (protobuf, textPage []byte) {
	t.Helper()
	var p, x strings.Builder
	for _, f := range families {
		if _, err := protodelim.MarshalTo(&p, f); err != nil {
			t.Fatal(err)
		}
		if _, err := expfmt.MetricFamilyToText(&x, f); err != nil {
			t.Fatal(err)
		}
	}
	return []byte(p.String()), []byte(x.String())
}

// respond listens on a unix socket, reads the header of one request and answers
// with what write writes, until the client hangs up.
func respond(t *testing.T, write func(io.Writer) error) (url string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "scrape")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "m.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return
		}
		for err == nil {
			err = write(conn)
		}
	}()
	return "unix://" + socket
}

func TestAnAnswerThatDoesNotEndIsCutOff(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
	once := func(first string, rest string) func(io.Writer) error {
		begun := false
		return func(w io.Writer) error {
			s := rest
			if !begun {
				begun, s = true, first+rest
			}
			_, err := io.WriteString(w, s)
			return err
		}
	}
	for name, test := range map[string]struct {
		write func(io.Writer) error
		want  string
	}{
		"headers":                 {once(ok, "X: "+strings.Repeat("x", 1000)+"\r\n"), "net/http: server response headers exceeded 65536 bytes; aborted"},
		"one header":              {once(ok+"X: ", strings.Repeat("x", 1000)), "net/http: server response headers exceeded 65536 bytes; aborted"},
		"a status line":           {once("HTTP/1.1 200 ", strings.Repeat("x", 1000)), "net/http: server response headers exceeded 65536 bytes; aborted"},
		"informational answers":   {once("", "HTTP/1.1 103 Early Hints\r\n\r\n"), "net/http: server response headers exceeded 65536 bytes; aborted"},
		"chunks of one byte":      {once(ok+"Transfer-Encoding: chunked\r\n\r\n", strings.Repeat("1\r\n#\r\n", 100)), "the exposition has more than 65536 bytes"},
		"chunk extensions":        {once(ok+"Transfer-Encoding: chunked\r\n\r\n", "1;"+strings.Repeat("x", 3000)+"\r\n#\r\n"), ": chunked encoding contains too much non-data"},
		"a body without a length": {once(ok+"\r\n", strings.Repeat("#\n", 1000)), "the exposition has more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScraper(t, scrape.Config{URL: respond(t, test.write), MaxBytes: 64 << 10, Timeout: time.Minute})
			_, err := s.Scrape(t.Context())
			if err == nil || !strings.HasSuffix(err.Error(), test.want) {
				t.Errorf("the error is\n%v, want at its end\n%s", err, test.want)
			}
		})
	}
}

func TestAnErrorIsShortWhateverThePageSays(t *testing.T) {
	long := strings.Repeat("x", 32<<10)
	for name, handler := range map[string]http.HandlerFunc{
		"content type": body("text/"+long, ""),
		"label value":  body(text, "a{b=\"\xff"+long+"\"} 1\n"),
		"metric name":  body(text, "# TYPE a"+long+" nonsense\n"),
		"value":        body(text, "a "+long+"\n"),
	} {
		t.Run(name, func(t *testing.T) {
			s := newScraper(t, scrape.Config{URL: serve(t, handler)[0]})
			_, err := s.Scrape(t.Context())
			if err == nil || len(err.Error()) > 1200 {
				t.Errorf("the error is %.2000v", err)
			}
		})
	}
}

// FuzzText is seeded with the pages of real engines, with hostile ones and with
// those in the directory that TEXT_PAGES names, if it does: the test data of
// github.com/prometheus/prometheus, model/textparse/testdata, for one.
func FuzzText(f *testing.F) {
	dirs := []string{filepath.Join("..", "..", "testdata", "pages")}
	if dir := os.Getenv("TEXT_PAGES"); dir != "" {
		dirs = append(dirs, dir)
	}
	seed(f, false, ".txt", dirs...)
	f.Fuzz(func(t *testing.T, page []byte) {
		var exposition []byte
		var err error
		n := allocated(func() { exposition, err = scrape.Exposition(t.Context(), page, expfmt.TypeTextPlain, scrape.Config{}) })
		// 64 MiB for 1 MiB, and less for less.
		if n > uint64(16<<20+48*len(page)) {
			t.Errorf("%d bytes allocated for a page of %d, error %v", n, len(page), err)
		}
		if err != nil {
			if exposition != nil {
				t.Error("an exposition beside an error")
			}
			return
		}
		checkSameAsParsed(t, page, exposition)
	})
}

// checkSameAsParsed checks that an exposition has the families that expfmt parses
// from the text, sorted by name.
func checkSameAsParsed(t *testing.T, page, exposition []byte) {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		t.Fatalf("an exposition of text that expfmt does not parse: %v", err)
	}
	var name string
	for _, family := range decode(t, exposition) {
		if family.GetName() <= name && name != "" {
			t.Errorf("%q comes after %q", family.GetName(), name)
		}
		name = family.GetName()
		if !proto.Equal(family, parsed[name]) {
			t.Errorf("the exposition has\n%v, expfmt parses\n%v", family, parsed[name])
		}
		delete(parsed, name)
	}
	if len(parsed) > 0 {
		t.Errorf("not in the exposition: %v", parsed)
	}
}

// FuzzProtobuf is seeded with the pages of real engines and with hostile ones. A
// page that every limit allows is accepted if, and only if, proto.Unmarshal
// accepts each of its messages. No page costs memory.
func FuzzProtobuf(f *testing.F) {
	seed(f, true, ".pb", filepath.Join("..", "..", "testdata", "pages"))
	for _, page := range protobufForms() {
		f.Add([]byte(page))
	}
	unlimited := scrape.Config{MaxSamples: math.MaxInt, MaxLabelBytes: math.MaxInt}
	f.Fuzz(func(t *testing.T, page []byte) {
		_, limited := scrape.Exposition(t.Context(), page, expfmt.TypeProtoDelim, scrape.Config{MaxSamples: 5, MaxLabelBytes: 5})
		var exposition []byte
		var err error
		n := allocated(func() { exposition, err = scrape.Exposition(t.Context(), page, expfmt.TypeProtoDelim, unlimited) })
		if n > 16<<10 {
			t.Errorf("%d bytes allocated for a page of %d, error %v", n, len(page), err)
		}
		families, want := unmarshal(page)
		if (err == nil) != (want == nil) {
			t.Fatalf("the error is %v, proto.Unmarshal's is %v", err, want)
		}
		if err != nil {
			if exposition != nil {
				t.Error("an exposition beside an error")
			}
			return
		}
		if !bytes.Equal(exposition, page) {
			t.Error("the exposition is not the page")
		}
		checkLimited(t, limited, families, 5, 5)
	})
}

// checkLimited checks that a page was refused if, and only if, its families have
// more than so many samples or a label or name of more than so many bytes. A
// message that is sent in parts, which unmarshaling merges, counts for each part.
func checkLimited(t *testing.T, err error, families []*dto.MetricFamily, maxSamples, maxLabelBytes int) {
	t.Helper()
	samples, labelBytes := countSamples(families), 0
	for _, f := range families {
		labelBytes = max(labelBytes, len(f.GetName()))
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labelBytes = max(labelBytes, len(l.GetName())+len(l.GetValue()))
			}
		}
	}
	var limit *scrape.LimitError
	switch {
	case err != nil && !errors.As(err, &limit):
		t.Errorf("not a LimitError: %v", err)
	case err == nil && (samples > maxSamples || labelBytes > maxLabelBytes):
		t.Errorf("accepted with %d samples and a label of %d bytes", samples, labelBytes)
	case err != nil && limit.Limit == scrape.LimitLabelBytes && labelBytes <= maxLabelBytes:
		t.Errorf("%v: the longest has %d", err, labelBytes)
	}
}

func seed(f *testing.F, protobuf bool, ext string, dirs ...string) {
	for _, dir := range dirs {
		pages, err := filepath.Glob(filepath.Join(dir, "*"+ext))
		if err != nil || len(pages) == 0 {
			f.Fatalf("no *%s in %s: %v", ext, dir, err)
		}
		for _, name := range pages {
			page, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(firstBytes(page, protobuf, 4<<10)) // whole ones are slow to mutate
		}
	}
	for _, h := range hostilePages() {
		if h.protobuf == protobuf {
			f.Add(h.of(2<<10, 1))
		}
	}
}

// firstBytes returns about n bytes of a page, of protobuf whole families.
func firstBytes(page []byte, protobuf bool, n int) []byte {
	if !protobuf {
		return page[:min(len(page), n)]
	}
	end := 0
	for end < len(page) && end < n {
		_, size := protowire.ConsumeBytes(page[end:])
		end += size
	}
	return page[:end]
}
