/* @title@

   How it works. A feature map is a plane of floats per channel, whose rows share their zero padding, so that a convolution is a sum over taps: shifted planes,
   each times a number. `block` sums them for up to 8 channels and 3 vectors of pixels in registers; the offsets of the taps stand in a table, so that it
   serves every window, and concatenation costs nothing. A convolution of stride 2 reads four planes, split by the parity of row and column. 3 x 3 windows take
   Winograd's transform over lines, the first layer over columns, too. Maps carry their values times log2(e), which the weights bring along, so that SiLU needs
   2^x only. The network is the tables below: steps in the order of the computation, gathered in stages, between which the threads wait for each other. */
#include "detector.h"

#define KINDS (@kinds@)
#define ACTIVATIONS (@activations@)
#include "system.h"
#include "vectors.h"
#include "network.h"
#include "maps.h"
#include "picture.h"
#include "convolution.h"
#include "depthwise.h"
#include "winograd.h"
#include "stem.h"
#include "head.h"
#include "run.h"
#include "tables.h"
#include "interface.h"
