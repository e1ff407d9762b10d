// Package report turns measurements into tables, charts and files. It
// measures nothing and invents nothing: a number that was not measured is a dash.
package report
