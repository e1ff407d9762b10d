// Package certfiles makes TLS of PEM files, and reads the files again when they change: a certificate is renewed by
// replacing its files, without a restart.
//
//	files ──Open──> Source ──Server──> Listen: a listener whose connections begin with the handshake
//	                      └──Client──> the other end
//
// Invariants:
//
//	C1  What is used always came from one consistent state of the files: a pair that does not fit together, or that
//	    cannot be read, is reported and the previous one stays in use.
//	C2  A handshake that begins after the files were replaced uses the new ones. Connections that exist go on.
//	C3  With authorities for clients, no byte of the application passes before the client's certificate was verified
//	    against them, for each connection anew: sessions are not resumed.
//	C4  Who speaks something else than TLS reaches nobody.
package certfiles
