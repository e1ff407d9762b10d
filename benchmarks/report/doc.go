// Package report turns measurements into what people and programs read. It
// measures nothing and invents nothing: a number that was not measured is a dash.
package report
