// Package page makes the metrics pages that the benchmark's programs scrape, and serves them.
//
// A page is a Prometheus registry of client_golang's own types. A server does not gather it on every scrape, which would
// cost more than what is measured: a [Set] holds a row of expositions that promhttp would have served, one per scrape.
package page

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Prefix starts the name of every family on a page, and of no metric that a scraping program adds.
const Prefix = "bench_"

// NumberName is the counter that holds an exposition's number: 1, 2, 3 and so on.
const NumberName = Prefix + "exposition_number_total"

// Histograms have ten bounds; with the bucket to infinity, sum and count these are the samples of one histogram.
const histogramSamples = 13

var bounds = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}

// Series in one family, at most; pages of any size have at least the families given to split.
const familySize = 5000

// Page is a registry whose values move.
type Page struct {
	// Registry is what promhttp serves.
	Registry *prometheus.Registry
	// Samples counts the page as the text format does, and as Prometheus' scrape_samples_scraped: a line each.
	Samples int
	// Points counts the page as OTLP does: a histogram is one data point.
	Points int

	number     prometheus.Counter
	counters   []prometheus.Counter
	gauges     []prometheus.Gauge
	histograms []prometheus.Observer
	random     *rand.Rand
}

// New returns a page of so many samples: 45% belong to histograms, 35% are gauges and 20% counters, with four labels of
// realistic length each. The same size gives the same page, whose values move in the same way.
func New(samples int) *Page {
	p := &Page{
		Registry: prometheus.NewRegistry(),
		Samples:  samples,
		random:   rand.New(rand.NewPCG(1, uint64(samples))),
	}
	p.number = prometheus.NewCounter(prometheus.CounterOpts{Name: NumberName, Help: "The number of this exposition."})
	p.Registry.MustRegister(p.number)

	histograms := int(math.Round(0.45 * float64(samples) / histogramSamples))
	counters := samples / 5
	gauges := samples - counters - histograms*histogramSamples - 1
	p.Points = 1 + histograms + counters + gauges

	split(counters, 4, func(family, size int) {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: fmt.Sprintf("%shttp_requests_%d_total", Prefix, family),
			Help: "Requests answered since the start of the process, by handler.",
		}, []string{"code", "handler", "method", "node"})
		p.Registry.MustRegister(vec)
		for i := range size {
			p.counters = append(p.counters, vec.WithLabelValues(labels(i)...))
		}
	})
	split(gauges, 6, func(family, size int) {
		vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: fmt.Sprintf("%scontainer_memory_%d_bytes", Prefix, family),
			Help: "Memory that the container uses now, by kind.",
		}, []string{"code", "handler", "method", "node"})
		p.Registry.MustRegister(vec)
		for i := range size {
			p.gauges = append(p.gauges, vec.WithLabelValues(labels(i)...))
		}
	})
	split(histograms, 3, func(family, size int) {
		vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    fmt.Sprintf("%srequest_duration_%d_seconds", Prefix, family),
			Help:    "How long requests took, by handler.",
			Buckets: bounds,
		}, []string{"code", "handler", "method", "node"})
		p.Registry.MustRegister(vec)
		for i := range size {
			p.histograms = append(p.histograms, vec.WithLabelValues(labels(i)...))
		}
	})
	for range 5 { // no histogram is empty
		p.observe()
	}
	return p
}

// split deals series out to families, at least so many.
func split(series, families int, add func(family, size int)) {
	families = max(families, (series+familySize-1)/familySize)
	for i := range families {
		add(i, series*(i+1)/families-series*i/families)
	}
}

var (
	codes   = []string{"200", "201", "304", "404", "500"}
	methods = []string{"GET", "POST", "PUT", "DELETE"}
)

func labels(i int) []string {
	return []string{
		codes[i%len(codes)],
		"/api/v2/orders/" + strconv.Itoa(100_000+i),
		methods[i/7%len(methods)],
		fmt.Sprintf("worker-%03d.eu-west-1", i%211),
	}
}

// Move gives every series the value that it has in the next exposition: each counter grows, each gauge is set, each
// histogram observes something.
func (p *Page) Move() {
	p.number.Inc()
	for _, c := range p.counters {
		c.Add(float64(1 + p.random.IntN(50)))
	}
	for i, g := range p.gauges {
		if i%2 == 0 {
			g.Set(float64(p.random.IntN(1<<20)) * 4096)
		} else {
			g.Set(math.Round(p.random.Float64()*1e6) / 1e3)
		}
	}
	p.observe()
}

func (p *Page) observe() {
	for _, h := range p.histograms {
		h.Observe(math.Round(p.random.ExpFloat64()*300) / 1e3)
	}
}

// Churn is a page some of whose series come and go from scrape to scrape.
type Churn struct {
	*Page
	vec  *prometheus.GaugeVec
	born int
}

// NewChurn returns a page of so many samples and so many short-lived series beside them.
func NewChurn(samples, transient int) *Churn {
	c := &Churn{
		Page: New(samples),
		vec: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: Prefix + "task_start_time_seconds",
			Help: "When the task started; the series ends with the task.",
		}, []string{"task", "node"}),
	}
	c.Registry.MustRegister(c.vec)
	for range transient {
		c.bear()
	}
	return c
}

func (c *Churn) bear() {
	c.vec.WithLabelValues(task(c.born)...).Set(float64(time.Now().Unix()))
	c.born++
}

func task(i int) []string {
	return []string{fmt.Sprintf("task-%08x", i), fmt.Sprintf("worker-%03d.eu-west-1", i%17)}
}

// Replace ends so many of the oldest short-lived series, of which there are transient, and starts as many new ones.
func (c *Churn) Replace(n, transient int) {
	for range n {
		c.vec.DeleteLabelValues(task(c.born - transient)...)
		c.bear()
	}
}
